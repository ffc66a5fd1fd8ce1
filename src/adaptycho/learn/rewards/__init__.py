"""Rewards, one file each, which has the name of its reward: `credit` gives every position its own (`adaptycho.learn.reward`)."""
