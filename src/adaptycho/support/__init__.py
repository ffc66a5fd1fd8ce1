"""What every program needs: files that are whole or not there, documents, threads, tasks in parallel."""
