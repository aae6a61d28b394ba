"""The mean of a model's snapshots."""

import torch

from asr_core.training.optim.averaging import ModelAverage


def test_average_is_the_mean_of_the_snapshots():
    torch.manual_seed(0)
    model = torch.nn.BatchNorm1d(3)
    tied = torch.nn.ModuleDict({"a": model, "b": model})
    average = ModelAverage(tied, period=2)
    snapshots = []
    for batch in range(1, 9):
        with torch.no_grad():
            model.weight.add_(torch.randn(3))
        average.update(batch)
        if batch % 2 == 0:
            snapshots.append(model.weight.detach().double().clone())
    got = average.state_dict()
    torch.testing.assert_close(got["a.weight"], torch.stack(snapshots).mean(0), rtol=1e-12, atol=1e-12)
    assert got["b.weight"] is got["a.weight"] and got["a.num_batches_tracked"].dtype == torch.int64
    tied.load_state_dict(got)  # the names and shapes are the model's
