"""Batches as functions of (seed, epoch)."""

import pytest
import torch

from semconv.data.order import Tickets, check_shares, evaluation_batches, is_held_out, train_batches
from tests.pairwise import together


def test_an_epoch_holds_each_image_once_but_for_what_fills_no_batch() -> None:
    index = torch.arange(100, 151)
    batches = list(train_batches(index, seed=1, epoch=0, batch_size=8, block=10**6))
    seen = torch.cat(batches).tolist()
    assert [len(batch) for batch in batches] == [8] * 6
    assert len(set(seen)) == 48
    assert set(seen) <= set(index.tolist())


def test_the_order_changes_with_seed_and_epoch_and_with_nothing_else() -> None:
    def order(seed: int, epoch: int, batch_size: int = 8) -> list[int]:
        return torch.cat(list(train_batches(torch.arange(48), seed, epoch, batch_size, block=48))).tolist()

    assert order(0, 0) == order(0, 0, batch_size=6)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_images_of_a_stream_stay_in_their_block() -> None:
    index = torch.arange(35)[torch.arange(35) % 5 > 0]
    order = torch.cat(list(train_batches(index, seed=0, epoch=2, batch_size=1, block=10)))
    assert torch.equal((order // 10), (order // 10).sort().values)
    assert torch.equal(order.sort().values, index)
    assert not torch.equal(order, index)


@together("count, batch_size", [(10, 4), (12, 4), (3, 4), (9, 4), (1, 1)])
def test_evaluation_has_each_image_once_in_order_in_even_batches(count: int, batch_size: int) -> None:
    batches = evaluation_batches(torch.arange(count), batch_size)
    sizes = [len(batch) for batch in batches]
    assert torch.cat(batches).tolist() == list(range(count))
    assert len(batches) == -(-count // batch_size)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_devices_share_each_batch_without_overlap(world_size: int) -> None:
    batches = evaluation_batches(torch.arange(35), 12)
    tickets = [list(Tickets(lambda epoch: batches, rank, world_size)) for rank in range(world_size)]
    assert {len(each) for each in tickets} == {len(batches)}
    for number, batch in enumerate(batches):
        shares = [each[number].members.tolist() for each in tickets]
        assert min(map(len, shares)) > 0
        assert sorted(i for share in shares for i in share) == batch.tolist()


def test_a_device_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 3 images leaves some of 4 devices without any: give a batch_size of 8"):
        check_shares(evaluation_batches(torch.arange(7), 4), world_size=4)


def test_tickets_begin_where_they_are_told() -> None:
    tickets = Tickets(lambda epoch: train_batches(torch.arange(20), 0, epoch, 4, 20))
    tickets.seek(3, 2)
    expected = list(train_batches(torch.arange(20), 0, 3, 4, 20))[2:]
    assert [ticket.members.tolist() for ticket in tickets] == [batch.tolist() for batch in expected]
    assert {ticket.epoch for ticket in tickets} == {3}


def test_validation_is_a_fixed_share_that_grows_with_the_fraction() -> None:
    index = torch.arange(20_000)
    held_out = is_held_out("validation", index, 0.05)
    assert held_out.float().mean() == pytest.approx(0.05, abs=0.0062)  # four standard errors
    assert bool((is_held_out("validation", index, 0.1) | ~held_out).all())
    assert torch.equal(held_out[500:510], is_held_out("validation", index[500:510], 0.05))
