"""Makes torchvision load beside a torch without CUDA, for which its operators in machine code are not made. To be imported before it."""

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
