"""Products of matrices in a compiled step, where oneDNN is faster than what torch.compile calls (`products`).

    mm(a, b)  →  product(a, bᵀ),      addmm(c, a, b)  →  product(a, bᵀ, c),      product(x, W, c) = x Wᵀ + c

torch.compile leaves products to MKL, whatever is around them. Its graph of a whole step, backward pass included, is a list of such calls,
of which the large ones are exchanged.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import products
from ..data.devices import CPU
from ..products import fast_products_here, large, product


@cache
def settings() -> dict[str, Any]:
    """What torch.compile is to be told; nothing where this processor has nothing to gain."""
    if not fast_products_here():
        return {}
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    _register()

    class Exchange(CustomGraphPass):
        def __call__(self, graph: torch.fx.graph.Graph) -> None:
            exchanged(graph)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__, str(products.__file__)))

    return {"post_grad_custom_post_pass": Exchange()}


@cache
def _register() -> None:
    """The product as an operator, which torch.compile calls as it stands."""
    torch.library.define("thetahat::product", "(Tensor x, Tensor W, Tensor? b) -> Tensor")
    torch.library.impl("thetahat::product", "CPU")(product)
    torch.library.register_fake("thetahat::product")(_shaped)


def _shaped(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], W.shape[0])


def exchanged(graph: torch.fx.graph.Graph) -> int:
    """How many products of a graph of torch's own operators were exchanged."""
    aten, many = torch.ops.aten, 0
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
            continue
        *bias, a, b = node.args
        x, W = a.meta["val"], b.meta["val"]
        added = bias[0].meta["val"] if bias else None
        if not _suits(x, W, added):
            continue
        with graph.inserting_before(node):
            turned = graph.call_function(aten.permute.default, (b, [1, 0]))
            turned.meta["val"] = W.t()
            ours = graph.call_function(
                torch.ops.thetahat.product.default, (a, turned, bias[0] if bias else None)
            )
            ours.meta.update(node.meta)
        node.replace_all_uses_with(ours)
        graph.erase_node(node)
        many += 1
    return many


def _suits(a: Tensor, b: Tensor, added: Tensor | None) -> bool:
    (R, D), O = a.shape, b.shape[1]
    numbers = all(isinstance(n, int) for n in (R, D, O))  # a length that torch leaves open may be small
    there = all(t.dtype == torch.float32 and t.device == CPU for t in (a, b))
    return numbers and there and large(R, D, O) and (added is None or added.shape == (O,))
