"""Indicators of visible content: functions of visible pixels only, whatever the fill puts into hidden ones.

Unlike the indicators of the mask they are not 0 where nothing is masked, so that a downstream task has to compute them too.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.corruption import View
from semconv.indicators.areas import area_mean, window_sums
from semconv.indicators.indicator import Grid, Indicator, Information
from semconv.indicators.mask import check_windows
from semconv.masking import spread_mask

FAINTEST = math.exp(-(20**2) / 2)  # weight of a visible cell, at a distance of 20 deviations of the Gaussian


class VisibleColour(Indicator):
    """Mean and variance of the visible colours in a window around each site: a first guess of the hidden content.

    Windows are measured in mask cells and centred on the site; several windows make a pyramid. Their part beyond the image does
    not count. The value is 0 where a window has no visible cell. Units: standard deviations of the data, clipped: means to
    [-3, 3], variances to [0, 3]. Channels: for each window, a mean and then a variance per colour. Not closed under shifts. Cost:
    sums over cells once per forward, and two small matrix products per window and grid.

    Also known as: normalised convolution (Knutsson & Westin, 1993), push-pull (with windows that double).

    Args:
        windows: sides of the windows in mask cells.
        colours: colour channels of an image.

    Raises:
        ValueError: a side is below 1 or listed twice, or there is none; in use: images have another number of colours.
    """

    per_image, low, high = True, -3.0, 3.0
    conveys: Information = "content"

    def __init__(self, windows: tuple[int, ...] = (3,), colours: int = 3) -> None:
        super().__init__()
        self.windows, self.colours = check_windows(windows), colours
        self.channels = 2 * colours * len(windows)

    def extra_repr(self) -> str:
        return f"windows={self.windows}, colours={self.colours}"

    def observe(self, view: View) -> Tensor:
        """Visible cells, the mean and the mean square of their colours: float64 `b 1+2c gh gw`."""
        if view.pixels.shape[1] != self.colours:
            raise ValueError(
                f"VisibleColour is made for {self.colours} colours, images have {view.pixels.shape[1]}: set its colours"
            )
        pixels = _cells(view)
        moments = [pixels.mean((4, 5)), pixels.square().mean((4, 5))]
        return torch.cat([(~view.mask)[:, None], *moments], dim=1).double()

    def lay(self, observed: Tensor, grid: Grid) -> Tensor:
        maps = []
        for window in self.windows:
            sums, _ = window_sums(observed, grid.height, grid.width, window)
            visible, first, second = sums.split([1, self.colours, self.colours], dim=1)
            mean, square = (torch.where(visible > 0, part / visible.clamp(min=1), 0) for part in (first, second))
            maps += [mean.clamp(self.low, self.high), (square - mean.square()).clamp(0, self.high)]
        return grid.extend(torch.cat(maps, dim=1).float())


class VisibleEdges(Indicator):
    """Edge strength and direction of visible pixels: the Sobel filter where its 3 x 3 pixels are all visible, 0 elsewhere.

    The filter reads no hidden pixel, so that the border of a masked cell is not an edge, and no pixel beyond the image. Channels:
    gradient magnitude (0 to 1), gradient to the right and gradient downwards (-1 to 1), of the mean over colours, in standard
    deviations of the data per pixel, clipped; averaged over each site. Not closed under shifts. Cost: the filter once per forward
    at every pixel, and a mean per grid.
    """

    channels, per_image, low, high = 3, True, -1.0, 1.0
    conveys: Information = "content"

    def observe(self, view: View) -> Tensor:
        hidden = spread_mask(view.mask, (view.pixels.shape[2], view.pixels.shape[3]))
        brightness = torch.where(hidden, 0, view.pixels.float()).mean(1, keepdim=True)
        right, down = _smooth(_rise(brightness, 3), 2), _smooth(_rise(brightness, 2), 3)
        strength = (right.square() + down.square()).sqrt()
        seen = F.max_pool2d(hidden.float(), 3, stride=1) == 0
        maps = torch.cat([strength, right, down], dim=1).clamp(self.low, self.high)
        return F.pad(torch.where(seen, maps, 0), (1, 1, 1, 1))


class VisibleClusters(Indicator):
    """Clusters of the visible cells: a segmentation of the image by k-means, one channel per cluster, 0 or 1.

    The features are the mean colour of a cell and its mean gradient (absolute differences of neighbouring pixels within the cell,
    to the right and downwards). Each image is clustered by itself: from quantiles of brightness, in a fixed number of Lloyd's
    steps, and with clusters numbered from dark to bright. So the result is deterministic, and a channel has the same meaning in
    all images. Hidden cells belong to no cluster; a site of several cells has the share of each cluster. Not closed under shifts.
    Cost: once per forward on the grid of cells.

    Args:
        clusters: number of clusters, one channel each.
        steps: number of steps of Lloyd's algorithm.

    Raises:
        ValueError: there are fewer than two clusters, or steps are negative.
    """

    per_image, low, high = True, 0.0, 1.0
    conveys: Information = "content"

    def __init__(self, clusters: int = 4, steps: int = 5) -> None:
        super().__init__()
        if clusters < 2 or steps < 0:
            raise ValueError(f"clusters is {clusters} and steps {steps}: give at least 2 clusters, and steps of 0 or more")
        self.channels, self.steps = clusters, steps

    def extra_repr(self) -> str:
        return f"clusters={self.channels}, steps={self.steps}"

    @torch.no_grad()
    def observe(self, view: View) -> Tensor:
        cells = rearrange(_describe(view), "b d gh gw -> b (gh gw) d")
        visible, colours = ~view.mask.flatten(1), view.pixels.shape[1]
        brightness = cells[..., :colours].mean(2)
        order = torch.where(visible, brightness, torch.inf).argsort(dim=1, stable=True)
        # the middle of each of as many equal parts of the visible cells as there are clusters
        middles = 2 * torch.arange(self.channels, device=cells.device) + 1
        ranks = visible.sum(1, keepdim=True) * middles // (2 * self.channels)
        centres = _take(cells, order.gather(1, ranks))
        for _ in range(self.steps):
            members = _members(cells, centres, visible)[..., None]
            number, total = members.sum(1), (members * cells[:, :, None]).sum(1)
            centres = torch.where(number > 0, total / number.clamp(min=1), centres)
        centres = _take(centres, centres[..., :colours].mean(2).argsort(dim=1, stable=True))
        gh, gw = view.mask.shape[1:]
        return rearrange(_members(cells, centres, visible).float(), "b (gh gw) k -> b k gh gw", gh=gh, gw=gw)


class SemanticMap(Indicator):
    """Learned prototypes of cells, and which of them stand where: a semantic map, from visible pixels to every site.

    A prototype is a learned picture of a cell, of `detail` x `detail` pixels. A visible cell, at this resolution, is assigned to
    the prototypes by a softmax of -d / temperature, where d is the mean squared difference of pixels: one channel per prototype, 0
    to 1, which add up to 1. A masked cell gets the mean over all visible cells, weighted by a Gaussian of their distance. A site of
    several cells has their mean. All is 0 where no visible cell is within 20 times `reach`.

    Prototypes are drawn as sums of a brightness (deviation 1), a colour (.5) and detail (.3), so that they differ as visible cells
    do. They are trained with the network, by the gradient of its loss; nothing else keeps them apart or in use. They have no weight
    decay, which would pull all of them towards the mean colour. Not closed under shifts. Cost: once per forward on the grid of
    cells.

    Also known as: visual words with soft assignment (NetVLAD; Arandjelovic et al., 2016), spread by normalised convolution
    (Knutsson & Westin, 1993).

    Args:
        prototypes: number of prototypes, one channel each.
        temperature: of the softmax, in variances of the data: lower values give harder assignments.
        reach: standard deviation of the Gaussian in mask cells.
        detail: rows and columns of a prototype.
        colours: colour channels of an image.

    Raises:
        ValueError: there are fewer than two prototypes, or another number is not above 0; in use: images have another number of
            colours.
    """

    per_image, low, high = True, 0.0, 1.0
    conveys: Information = "content"

    def __init__(
        self, prototypes: int = 8, temperature: float = 0.3, reach: float = 1.0, detail: int = 4, colours: int = 3
    ) -> None:
        super().__init__()
        if prototypes < 2 or min(temperature, reach, detail, colours) <= 0:
            raise ValueError(
                f"prototypes are {prototypes}, temperature {temperature}, reach {reach}, detail {detail} and colours {colours}: "
                "give at least 2 prototypes, and numbers above 0"
            )
        self.channels, self.temperature, self.reach, self.colours = prototypes, temperature, reach, colours
        self.prototypes = nn.Parameter(torch.empty(prototypes, colours, detail, detail))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        brightness, colour = (torch.randn_like(part) for part in (self.prototypes[:, :1, :1, :1], self.prototypes[:, :, :1, :1]))
        with torch.no_grad():
            self.prototypes.normal_(std=0.3).add_(brightness + 0.5 * colour)

    def extra_repr(self) -> str:
        return f"prototypes={self.channels}, temperature={self.temperature}, reach={self.reach}, detail={self.prototypes.shape[2]}"

    def observe(self, view: View) -> Tensor:
        assigned = self.assign(view).masked_fill(view.mask[:, None], 0)
        parts = torch.cat([(~view.mask)[:, None].double(), assigned], dim=1)
        down, right = (_gaussian(length, self.reach, view.mask.device) for length in view.mask.shape[1:])
        weight, total = torch.einsum("ij,bkjl,ml->bkim", down, parts, right).split([1, self.channels], dim=1)
        spread = torch.where(weight > FAINTEST, total / weight.clamp(min=FAINTEST), 0)
        return torch.where(view.mask[:, None], spread, assigned).float()

    def assign(self, view: View) -> Tensor:
        """Share of each prototype in each cell, of which those of hidden cells mean nothing: float64 `b prototypes gh gw`."""
        if view.pixels.shape[1] != self.colours:
            raise ValueError(f"SemanticMap is made for {self.colours} colours, images have {view.pixels.shape[1]}: set its colours")
        (rows, columns), detail = view.mask.shape[1:], self.prototypes.shape[2]
        hidden = spread_mask(view.mask, (view.pixels.shape[2], view.pixels.shape[3]))
        pixels = area_mean(torch.where(hidden, 0, view.pixels), rows * detail, columns * detail).double()
        cells = rearrange(pixels, "b c (gh p) (gw q) -> b gh gw (c p q)", p=detail, q=detail)
        prototypes = self.prototypes.flatten(1).double()
        # |cell - prototype|^2 but for |cell|^2, which all prototypes share
        distance = prototypes.square().mean(1) - 2 * cells @ prototypes.T / prototypes.shape[1]
        return rearrange((-distance / self.temperature).softmax(3), "b gh gw k -> b k gh gw")


class SelfSimilarity(Indicator):
    """Similarity of each visible cell to each of its visible neighbours, from 0 to 1: local attention as an indicator.

    exp(-|p - q|^2) of the features p and q of two cells, their mean colour and gradient as in `VisibleClusters`: attention weights
    before normalisation, one channel per neighbour, in reading order. 0 where one of the cells is hidden or beyond the image; a
    site of several cells has their mean. Not closed under shifts. Cost: once per forward on the grid of cells.

    Also known as: local self-similarity (Shechtman & Irani, 2007), affinity map.

    Args:
        window: side of the neighbourhood in mask cells.

    Raises:
        ValueError: the window is even, or below 3.
    """

    per_image, low, high = True, 0.0, 1.0
    conveys: Information = "content"

    def __init__(self, window: int = 3) -> None:
        super().__init__()
        if window < 3 or window % 2 == 0:
            raise ValueError(f"window is {window}: give an odd number of mask cells, 3 or more")
        self.window, self.channels = window, window**2 - 1

    def extra_repr(self) -> str:
        return f"window={self.window}"

    def observe(self, view: View) -> Tensor:
        reach, (rows, columns) = self.window // 2, view.mask.shape[1:]
        cells, visible = _describe(view), ~view.mask
        beside, seen = (F.pad(part, (reach,) * 4) for part in (cells, visible))
        maps = []
        for i in range(self.window):
            for j in range(self.window):
                if (i, j) != (reach, reach):
                    other = beside[:, :, i : i + rows, j : j + columns]
                    both = visible & seen[:, i : i + rows, j : j + columns]
                    maps.append(torch.where(both, (-(cells - other).square().sum(1)).exp(), 0))
        return torch.stack(maps, dim=1)


def _gaussian(length: int, deviation: float, device: torch.device) -> Tensor:
    """Weight of each cell for each cell along one side: float64 `length length`."""
    place = torch.arange(length, device=device).double() / deviation
    return (-(place - place[:, None]).square() / 2).exp()


def _cells(view: View) -> Tensor:
    """The pixels of every cell, 0 in hidden ones: float32 `b c gh gw p q`."""
    rows, columns = view.mask.shape[1:]
    cells = rearrange(view.pixels.float(), "b c (gh p) (gw q) -> b c gh gw p q", gh=rows, gw=columns)
    return torch.where(view.mask[:, None, :, :, None, None], 0, cells)


def _describe(view: View) -> Tensor:
    """Features of every cell, 0 for hidden ones: float32 `b c+2 gh gw`.

    Mean colour, and mean absolute difference of neighbouring pixels to the right and downwards.
    """
    cells = _cells(view)
    brightness = cells.mean(1)
    slopes = [brightness.diff(dim=dim).abs() for dim in (4, 3)]
    gradient = [slope.sum((3, 4)) / max(1, slope.shape[3] * slope.shape[4]) for slope in slopes]
    return torch.cat([cells.mean((4, 5)), torch.stack(gradient, dim=1)], dim=1)


def _members(cells: Tensor, centres: Tensor, visible: Tensor) -> Tensor:
    """The nearest centre of each visible cell, the first of equally near ones: bool `b n k`."""
    distance = (cells[:, :, None] - centres[:, None]).square().sum(3)
    nearest = distance == distance.amin(2, keepdim=True)
    return nearest & (nearest.cumsum(2) == 1) & visible[..., None]


def _take(rows: Tensor, number: Tensor) -> Tensor:
    """Rows by their numbers: `b n d` and int64 `b k` to `b k d`."""
    return rows.gather(1, number[..., None].expand(-1, -1, rows.shape[2]))


def _rise(x: Tensor, dim: int) -> Tensor:
    """Half the difference of the two neighbours along a dimension: one row or column fewer at each end."""
    length = x.shape[dim] - 2
    return (x.narrow(dim, 2, length) - x.narrow(dim, 0, length)) / 2


def _smooth(x: Tensor, dim: int) -> Tensor:
    """A filter of weights 1 2 1 (over 4) along a dimension: one row or column fewer at each end."""
    length = x.shape[dim] - 2
    return (x.narrow(dim, 0, length) + 2 * x.narrow(dim, 1, length) + x.narrow(dim, 2, length)) / 4
