"""Functions and methods against PyTorch: each line is run with both libraries, with the same text.

Compared are the value, its shape, its dtype, and the gradients of all float inputs, in float64 to 1e-8.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import minidl

RNG = np.random.default_rng(7)
ARRAYS = {
    "x": RNG.normal(size=(3, 4)), "y": RNG.normal(size=(3, 4)), "v": RNG.normal(size=4), "w": RNG.normal(size=3),
    "p": RNG.uniform(0.2, 2, (3, 4)), "q": RNG.uniform(0.1, 0.9, (3, 4)), "s": RNG.normal(size=(4, 4)),
    "img": RNG.normal(size=(2, 4, 6, 5)), "seq": RNG.normal(size=(2, 4, 7)), "kernel": RNG.normal(size=(4, 3, 2, 3)),
    "taps": RNG.normal(size=(6, 2, 3)), "a": RNG.normal(size=(2, 3, 4)), "c": RNG.normal(size=(2, 4, 3)),
    "table": RNG.normal(size=(5, 3)), "scores": RNG.normal(size=(6, 5)), "pixels": RNG.normal(size=(2, 5, 3, 2)),
    "big": RNG.normal(size=(3, 4)) * 30, "chans": RNG.uniform(0.5, 1.5, 4), "zero": np.array([[0.0, 2, -1], [0, 0, 3]]),
    "i": RNG.integers(0, 3, (3, 4)), "k": np.array([2, 0, 1, 1]), "n": RNG.integers(-5, 6, (3, 4)),
    "labels": np.array([0, 4, 2, 2, 1, 3]), "some": np.array([0, -100, 2, -100, 1, 3]),
    "places": RNG.integers(0, 5, (2, 3, 2)), "m": RNG.random((3, 4)) > 0.5, "o": RNG.random((3, 4)) > 0.5,
    "ties": np.array([[1.0, 3, 3, 0], [2, 2, 2, 2]]), "signs": np.array([1.0, -1, 1]),
}

ELEMENTWISE = [
    "x + y", "x - 2", "3 - x", "x * v", "x / p", "2 / p", "p ** 3", "p ** v", "2 ** x", "-x", "+x", "abs(x)", "x // p",
    "x % p", "n % 3", "n // 2", "-n // 2", "5 % p.detach()", "7 // p", "p ** -1", "p ** 0.5", "t.exp(x)", "t.expm1(x)", "t.exp2(x)",
    "t.log(p)", "t.log1p(p)", "t.log2(p)", "t.log10(p)", "t.sqrt(p)", "t.rsqrt(p)", "t.square(x)", "t.reciprocal(p)",
    "t.sin(x)", "t.cos(x)", "t.tan(x)", "t.atan(x)", "t.sinh(x)", "t.cosh(x)", "t.tanh(x)", "t.sigmoid(big)",
    "t.relu(x)", "t.erf(x)", "t.abs(x)", "t.sign(x)", "t.floor(x)", "t.ceil(x)", "t.trunc(x)", "t.round(x)",
    "t.round(x, decimals=2)", "x.clamp(-0.5, 0.5)", "x.clamp(min=0.1)", "x.clamp(max=0.1)", "t.clamp(x, 0.0)",
    "x.clamp(min=y)", "x.clamp(-0.5 * p, p)", "n.clamp(-2, 2)", "n.clamp(-1.5, 2)", "x.clip(0, 1)", "t.maximum(x, y)",
    "t.minimum(x, v)", "t.maximum(ties, ties)", "t.max(x, y)", "t.min(x, y)", "x.add(y, alpha=3)", "x.sub(y, alpha=-2)",
    "t.add(x, 2)", "t.mul(x, y)", "t.div(x, p, rounding_mode='floor')", "t.div(n, 2, rounding_mode='trunc')",
    "t.pow(p, 2)", "x.pow(2)", "t.lerp(x, y, 0.3)", "t.addcmul(x, y, p, value=0.5)",
    "t.addcdiv(x, y, p, value=0.5)", "t.where(m, x, y)", "t.where(m, x, 0.5)", "t.where(x > 0, x, 0)", "t.where(m, n, x)",
    "t.where(m, 1, 2)", "t.where(m, 1.5, 2)", "x.where(m, y)", "t.isnan(x / (x * 0))", "t.isinf(x / (x * 0))",
    "t.isfinite(p.log())", "t.isclose(x, x + 1e-9)", "m & o", "m | o", "m ^ o", "~m", "n & 3", "n | 1", "~n", "t.logical_and(n, m)",
    "t.logical_or(n, m)", "t.logical_xor(x, m)", "t.logical_not(n)", "x == y", "x != x", "n > 0", "x >= v", "x < 0.1",
    "x <= y", "t.eq(n, 1)", "t.gt(x, y)", "n / 2", "n * 0.5", "n + x", "m + m", "m * x", "n.float()", "x.float() * 2",
    "t.softmax(big, 1)", "t.log_softmax(big, dim=0)", "x.softmax(-1)", "t.asin(q)", "t.acos(q - 0.5)", "t.fmod(x, 0.3)",
    "t.fmod(n, 3)", "t.nan_to_num(x / (x * 0).detach())", "t.nan_to_num(x, posinf=1.0)", "t.logaddexp(big, y)", "t.atan2(x, y)",
    "t.atan2(zero, zero.flip(1))", "t.isin(n, k)", "t.isin(n, t.tensor(3))", "x.lerp(y, p)", "+n", "x.square().rsqrt()",
]
REDUCTIONS = [
    "x.sum()", "t.sum(a, (0, 2))", "a.sum(1, keepdim=True)", "n.sum()", "m.sum()", "m.sum(0)", "x.mean()", "a.mean((0, 1))",
    "t.mean(a, dim=2, keepdim=True)", "x.var()", "x.var(0)", "x.var(1, unbiased=False)", "x.var(dim=1, keepdim=True)",
    "a.var((0, 2), correction=0)", "x.std()", "x.std(0)", "t.std(a, dim=(1, 2))", "t.var(x, 1, correction=2)",
    "x.prod()", "x.prod(1)", "zero.prod(1)", "zero.prod()", "a.prod(1, keepdim=True)", "n.prod(0)", "t.cumsum(x, 1)",
    "t.cumsum(n, 0)", "t.cumprod(x, 1)", "zero.cumprod(1)", "x.logsumexp(1)", "t.logsumexp(big, (0, 1))",
    "x.logsumexp(0, keepdim=True)", "x.norm()", "t.norm(x)", "x.norm(dim=1)", "x.norm(p=1, dim=0)", "a.norm(2, (0, 2))",
    "x.norm(3, 1)", "x.norm(math.inf)", "x.norm(-math.inf, 1)", "n.double().norm(0)", "(x * 0).norm()", "x.max()", "x.min()",
    "t.max(x, 1)[0]", "t.max(x, 1)[1]", "x.max(0).values", "x.min(1).indices", "x.max(1, keepdim=True)[0]", "n.max()",
    "ties.max(1)[0]", "ties.argmax(1)", "x.argmax()", "x.argmin(0)", "t.argmax(x, dim=1, keepdim=True)", "x.amax(1)",
    "x.amin((0, 1))", "a.amax((0, 2), keepdim=True)", "x.any()", "m.all(1)", "t.any(m, 0)", "t.all(m)", "n.any(1, keepdim=True)",
    "x.sort(1).values", "x.sort(0, descending=True)[0]", "t.sort(x)[1]", "t.argsort(x, 1)", "n.sort()[0]", "x.topk(2)[0]",
    "t.topk(x, 2, dim=0)[1]", "x.topk(3, largest=False).values", "x.median()", "x.median(1)[0]", "t.median(a, 2).values",
    "t.count_nonzero(n)", "n.unique()", "t.unique(i, return_counts=True)[1]", "t.unique(i, return_inverse=True)[1]",
    "t.bincount(k)", "t.bincount(k, minlength=6)", "s.trace()", "t.trace(s)", "t.equal(x, x)", "t.allclose(x, x + 1e-12)",
    "x.max(1).values.sum()", "t.cdist(x, y)", "t.cdist(a, a)[0, 0, 1:]", "x.quantile(0.3)", "t.quantile(x, 0.5, dim=1)", "x.quantile(t.tensor([0.1, 0.9]).double(), 0)",
    "x.quantile(0.25, 1, keepdim=True)", "t.diff(x)", "t.diff(x, n=2, dim=0)", "t.var_mean(x, 1)[0]", "t.std_mean(a, (0, 2))[1]",
    "t.linalg.norm(x)", "t.linalg.vector_norm(x, dim=1)", "t.linalg.matrix_norm(a)", "t.linalg.inv(s.detach())", "t.linalg.det(s.detach())",
    "t.linalg.solve(s.detach(), s.detach()[:, :2])", "t.linalg.eigvalsh((s + s.T).detach())", "t.linalg.svd(x.detach()).S",
    "t.linalg.pinv(x.detach())", "t.linalg.matrix_rank(x.detach())", "t.linalg.cholesky((s @ s.T).detach())",
    "t.linalg.lstsq(x.T.detach(), v.detach().unsqueeze(1)).solution", "t.linalg.eigh((s + s.T).detach())[0]",
]
SHAPES = [
    "a.reshape(4, -1)", "a.view(6, 4)", "a.flatten()", "a.flatten(1)", "t.flatten(a, 0, 1)", "t.flatten(a, start_dim=1)",
    "a.unflatten(2, (2, 2))", "a.transpose(0, 2)", "t.transpose(a, 1, 2)", "x.t()", "x.T", "a.mT", "a.permute(2, 0, 1)",
    "t.permute(a, (1, 2, 0))", "x.unsqueeze(1).squeeze()", "t.squeeze(x.unsqueeze(0), 0)", "t.unsqueeze(x, -1)",
    "v.expand(3, 4)", "v.expand_as(x)", "v.repeat(3, 2)", "a.repeat(1, 2, 1)", "x.repeat(2, 1, 3)", "t.tile(x, (2,))",
    "v.repeat_interleave(2)", "t.repeat_interleave(x, 3, dim=1)", "t.cat([x, y], 0)", "t.cat((x, y, x), dim=1)",
    "t.cat([x, n], 1)", "t.stack([x, y])", "t.stack((x, y), dim=-1)", "t.stack([v, v * 2], dim=1)", "t.hstack([v, v])",
    "t.hstack([x, y])", "t.vstack([v, x])", "x.split(2, 1)[0]", "x.split([1, 3], dim=1)[1]", "t.split(x, 2)[1]", "x.chunk(2, 1)[1]",
    "t.chunk(v, 3)[0]", "a.unbind(1)[2]", "F.pad(x, (1, 2))", "F.pad(x, (1, 0, 2, 1), value=3.0)", "F.pad(img, (1, 2, 0, 1), 'reflect')",
    "F.pad(img, (2, 2, 3, 1), mode='replicate')", "F.pad(img, (2, 1, 1, 2), mode='circular')", "F.pad(x, (-1, 2))",
    "F.pad(img, (0, -2, -1, 0))", "x.flip(0)", "t.flip(a, (0, 2))", "t.flip(a, [1])", "x.roll(1)", "t.roll(x, 2, 1)",
    "t.roll(a, (1, -1), (0, 2))", "s.tril()", "t.triu(s, 1)", "x.tril(-1)", "a.triu()", "x.diagonal()", "a.diagonal(1, 1, 2)",
    "v.diag()", "t.diag(s)", "t.diag(v, 1)", "t.movedim(a, 0, 2)", "a.narrow(2, 1, 2)", "a.select(1, 2)", "x.view_as(x)",
    "t.meshgrid(v, w, indexing='ij')[0]", "t.meshgrid(v, w, indexing='xy')[1]", "t.tril_indices(3, 3)", "t.triu_indices(3, 4, 1)",
    "t.broadcast_to(v, (3, 4))", "t.cartesian_prod(v, w)", "t.swapaxes(a, 0, 1)", "a.ravel()", "a.contiguous()", "seq.unfold(2, 3, 2)",
    "x.reshape_as(p)", "t.numel(x)", "x.nelement()", "x.dim()", "x.size(0)", "x.size()", "a.shape[1:].numel()",
]
INDEXING = [
    "x[0]", "x[1:, ::2]", "x[..., -1]", "x[:, None]", "x[k[:3]]", "x[[0, 2]]", "x[m]", "x[x > 0]", "x[i[:, 0], k[:3]]",
    "x[:, k]", "a[:, k[:2]]", "a[0, :, k]", "x.gather(1, i)", "t.gather(x, 0, i[:2])", "t.index_select(x, 1, k)",
    "x.index_select(0, k[:2])", "x.masked_fill(m, -1)", "x.masked_fill(m, float('-inf')).softmax(1).sum()", "x.masked_select(m)",
    "t.masked_select(x, v > 0)", "x.scatter(1, i, y)", "x.scatter(1, i[:, :1], 2.5)", "x.scatter_add(1, i, y)",
    "t.scatter_add(x, 0, i, y)", "x.index_add(0, k[:3], y)", "t.nonzero(n)", "n.nonzero(as_tuple=True)[1]",
    "t.where(n > 0)[0]", "t.take_along_dim(x, i, 1)", "F.one_hot(k)", "F.one_hot(i, 5)",
    "F.embedding(places, table)", "F.embedding(places, table, padding_idx=2)", "table[places]",
]
PRODUCTS = [
    "x @ s", "t.matmul(a, s)", "t.mm(x, s)", "t.bmm(a, c)", "a.bmm(c)", "t.mv(x, v)", "t.dot(v, v)", "t.outer(w, v)",
    "t.addmm(y, x, s, beta=0.5, alpha=2)", "t.einsum('ij,kj->ik', x, y)", "t.einsum('ij->j', x)", "t.einsum('ii', s)",
    "t.einsum('ii->i', s)", "t.einsum('bij,bjk->bik', a, c)", "t.einsum('...ij,...jk->...ik', a, c)", "t.einsum('ij,j', x, v)",
    "t.einsum('i,j->ij', w, v)", "t.einsum('bij,kj->bk', a, y)", "t.einsum('ij,ij->', x, y)", "t.einsum('bij -> b', a)",
    "t.einsum('...i,i->...', a, v)", "t.einsum('ij,jk,kl->il', x, s, s)", "t.tensordot(a, c, dims=([2, 0], [1, 0]))", "t.tensordot(x, s, 1)", "F.linear(x, s, v)", "F.bilinear(x, y, t.ones(2, 4, 4).double(), v[:2])",
    "F.scaled_dot_product_attention(a, a * 2, a + 1)", "F.scaled_dot_product_attention(s, s, s, is_causal=True)",
    "F.scaled_dot_product_attention(x, y, p, attn_mask=(x @ y.T > 0) | t.eye(3).bool())",
]
ACTIVATIONS = [f"F.{call}" for call in (
    "relu(x)", "relu6(big)", "leaky_relu(x)", "leaky_relu(x, 0.3)", "prelu(x, chans)", "prelu(img, chans)", "prelu(x, v[:1])",
    "elu(x)", "elu(big, 0.7)", "selu(x)", "celu(x, 0.5)", "gelu(x)", "gelu(big)", "gelu(x, approximate='tanh')", "silu(big)", "mish(x)",
    "mish(big)", "softplus(x)", "softplus(big)", "softplus(x, beta=3)", "softsign(x)", "tanhshrink(x)", "hardtanh(x)",
    "hardtanh(x, -0.2, 0.7)", "hardsigmoid(big)", "hardswish(big)", "softmax(x, 1)", "log_softmax(big, 1)", "logsigmoid(big)",
    "threshold(x, 0.1, -3)", "hardshrink(x)", "softshrink(x, 0.3)", "glu(x)", "glu(img, 1)", "softmin(x, 0)", "tanh(x)", "sigmoid(x)",
    "rrelu(x)", "softmax(x, dim=-1)")]
LAYERS = [f"F.{call}" for call in (
    "conv2d(img, kernel.transpose(0, 1)[:, :, :, :2])", "conv2d(img, kernel[:, :2], groups=2, stride=2, padding=1)",
    "conv_transpose2d(img, kernel)", "conv_transpose2d(img, kernel, w, stride=2, padding=1, output_padding=1)",
    "conv_transpose2d(img, kernel, stride=(2, 3), padding=(1, 2), output_padding=(1, 2), dilation=(2, 1))",
    "conv_transpose2d(img, kernel, t.cat([w, w]), groups=2)", "conv1d(seq, taps, groups=2)", "conv1d(seq, taps.reshape(3, 4, 3), w, 2, 1)",
    "conv1d(seq, taps.reshape(3, 4, 3), padding='same', dilation=2)", "conv_transpose1d(seq, kernel[:, :, 0], w, 2, 1, 1)",
    "max_pool2d(img, 2)", "max_pool2d(img, 3, 2, 1, ceil_mode=True)", "max_pool2d(img, 2, return_indices=True)[1]",
    "max_unpool2d(*F.max_pool2d(img[..., :4], 2, return_indices=True), 2)", "max_unpool2d(*F.max_pool2d(img, 2, return_indices=True), 2, output_size=(6, 5))",
    "avg_pool2d(img, (3, 2), 2, 1, ceil_mode=True)", "avg_pool2d(img, 2, count_include_pad=False, padding=1)", "max_pool1d(seq, 3, 2)",
    "avg_pool1d(seq, 3, 1, 1)", "adaptive_avg_pool2d(img, 1)", "adaptive_avg_pool2d(img, (4, 3))", "adaptive_avg_pool2d(img, (3, None))",
    "adaptive_avg_pool2d(img, (8, 7))", "adaptive_max_pool2d(img, (4, 3))", "adaptive_max_pool2d(img, (3, 5))", "adaptive_avg_pool1d(seq, 3)",
    "adaptive_max_pool1d(seq, 3)", "interpolate(img, scale_factor=2)", "interpolate(img, size=(9, 4))", "interpolate(img, scale_factor=(1.5, 0.7))",
    "interpolate(img, size=(7, 11), mode='bilinear')", "interpolate(img, scale_factor=2, mode='bilinear', align_corners=True)",
    "interpolate(img, scale_factor=(1.7, 0.6), mode='bilinear', align_corners=False)", "interpolate(img, size=(1, 3), mode='bilinear', align_corners=True)",
    "interpolate(seq, scale_factor=2, mode='linear')", "interpolate(seq, size=5)", "interpolate(img, size=(3, 2), mode='area')",
    "interpolate(img, size=(4, 9), mode='nearest-exact')", "pixel_shuffle(img, 2)", "pixel_unshuffle(img[..., :4], 2)", "unfold(img, 2)",
    "unfold(img, (3, 2), dilation=(1, 2), padding=(2, 1), stride=(2, 1))", "fold(F.unfold(img, 3, padding=1), (6, 5), 3, padding=1)",
    "batch_norm(img, None, None, training=True)", "batch_norm(img, v.detach() * 0, chans.detach(), chans, v)", "batch_norm(x, None, None, chans, v, training=True, eps=0.1)",
    "layer_norm(a, (4,))", "layer_norm(a, (3, 4), x, y)", "layer_norm(img, img.shape[1:])", "group_norm(img, 2, chans, v)", "instance_norm(img)",
    "instance_norm(seq, weight=chans, bias=v)", "local_response_norm(img, 3)", "local_response_norm(img, 2, 0.3, 0.5, 2.0)", "normalize(x)",
    "normalize(a, p=1, dim=2)", "cosine_similarity(x, y)", "cosine_similarity(x, y * 0)", "cosine_similarity(a, a * 2 + 1, dim=2)",
    "pairwise_distance(x, y)", "pairwise_distance(x, y, p=1, keepdim=True)", "dropout(x, 0.5, training=False)", "dropout2d(img, 0.3, False)",
    "dropout(x, 1.0, True)", "dropout(x, 0.0, True)")]
LOSSES = [f"F.{call}" for call in (
    "cross_entropy(scores, labels)", "cross_entropy(scores, labels, reduction='sum')", "cross_entropy(scores, labels, reduction='none')",
    "cross_entropy(scores, some)", "cross_entropy(scores, some, reduction='none')", "cross_entropy(scores, some, reduction='sum')",
    "cross_entropy(scores, labels, ignore_index=2)", "cross_entropy(scores, labels, weight=table[:, 0].abs().detach())",
    "cross_entropy(scores, some, weight=table[:, 0].abs().detach())", "cross_entropy(scores, labels, label_smoothing=0.2)",
    "cross_entropy(scores, some, weight=table[:, 0].abs().detach(), label_smoothing=0.3)", "cross_entropy(scores, scores.softmax(1).detach() ** 2)",
    "cross_entropy(scores, scores.softmax(1), weight=table[:, 0].abs().detach(), label_smoothing=0.1)",
    "cross_entropy(pixels, places % 5)", "cross_entropy(pixels, places, label_smoothing=0.1, weight=table[:, 1].abs().detach())",
    "cross_entropy(scores[0], labels[0])", "cross_entropy(scores[0], labels[0], reduction='none')", "cross_entropy(scores, (labels * 0 - 100))",
    "nll_loss(scores.log_softmax(1), labels)", "nll_loss(scores.log_softmax(1), some)", "nll_loss(scores.log_softmax(1), some, weight=table[:, 0].abs().detach())",
    "nll_loss(scores.log_softmax(1), some, weight=table[:, 0].abs().detach(), reduction='none')", "nll_loss(pixels.log_softmax(1), places, reduction='sum')", "nll_loss(scores[0].log_softmax(0), labels[0])",
    "mse_loss(x, y)", "mse_loss(x, y, reduction='sum')", "mse_loss(x, y, reduction='none')", "l1_loss(x, y)", "smooth_l1_loss(x, y)",
    "smooth_l1_loss(x, y, beta=0.3, reduction='none')", "smooth_l1_loss(x, y, beta=0.0)", "huber_loss(x, y, delta=0.4)", "binary_cross_entropy(q, p / 3)",
    "binary_cross_entropy(m.double(), p.detach() / 3, reduction='none')", "binary_cross_entropy(q, m.double(), weight=v.abs().detach())",
    "binary_cross_entropy_with_logits(big, q)", "binary_cross_entropy_with_logits(x, m.double(), pos_weight=chans.detach())",
    "binary_cross_entropy_with_logits(x, q, weight=chans.detach(), reduction='sum')", "kl_div(x.log_softmax(1), q, reduction='sum')", "kl_div(x.log_softmax(1), y, log_target=True, reduction='sum')",
    "kl_div(x.log_softmax(1), y.softmax(1), reduction='batchmean')", "kl_div(-p, m.double(), reduction='none')", "gaussian_nll_loss(x, y, p)",
    "gaussian_nll_loss(x, y, p * 0, full=True)", "poisson_nll_loss(x, p)", "poisson_nll_loss(p, q, log_input=False)", "triplet_margin_loss(x, y, p)",
    "triplet_margin_loss(x, y, p, margin=0.2, swap=True, reduction='none')", "margin_ranking_loss(w, w * w, signs, 0.1)", "hinge_embedding_loss(w, signs)",
    "cosine_embedding_loss(x, y, signs, 0.1)", "soft_margin_loss(w, signs.detach())")]
EXPRESSIONS = [*ELEMENTWISE, *REDUCTIONS, *SHAPES, *INDEXING, *PRODUCTS, *ACTIVATIONS, *LAYERS, *LOSSES]


def run(expression, library, functional):
    names = {name: library.tensor(array) for name, array in ARRAYS.items()}
    for x in names.values():
        if x.is_floating_point():
            x.requires_grad_()
    result = eval(expression, {"t": library, "F": functional, "math": math, **names})
    return result, names


def test_no_line_is_there_twice():
    assert len(set(EXPRESSIONS)) == len(EXPRESSIONS)


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_it_is_what_pytorch_gives(expression, torch):
    mine, my_inputs = run(expression, minidl, minidl.nn.functional)
    theirs, their_inputs = run(expression, torch, torch.nn.functional)
    if not isinstance(theirs, torch.Tensor):
        assert mine == (tuple(theirs) if isinstance(theirs, torch.Size) else theirs)
        return
    assert tuple(mine.shape) == tuple(theirs.shape)
    assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-8, atol=1e-12)
    if not mine.requires_grad:
        # what is flat has a gradient of zeros in PyTorch and none here
        assert not theirs.requires_grad or expression.startswith(("t.sign", "t.floor", "t.ceil", "t.trunc", "t.round")) \
            or "//" in expression or "rounding_mode" in expression or "norm(0)" in expression
        return
    weights = np.random.default_rng(1).normal(size=tuple(mine.shape))
    (mine * minidl.tensor(weights).to(mine.dtype)).sum().backward()
    (theirs * torch.tensor(weights).to(theirs.dtype)).sum().backward()
    for name, x in my_inputs.items():
        other = their_inputs[name].grad
        if x.grad is None or other is None:
            assert x.grad is None or not x.grad.array.any(), name
            assert other is None or not other.any(), name
        else:
            rtol = 1e-7 if "hardsigmoid" in expression else 1e-8        # PyTorch's 1/6 there has 7 digits
            np.testing.assert_allclose(x.grad.numpy(), other.numpy(), rtol=rtol, atol=1e-12, err_msg=name)
