"""The benchmark of the input at a small size, without its peer."""

import itertools

import numpy as np

from launch.bench import input as bench_input


def test_shards_and_the_batches_of_them():
  with bench_input.written(examples=64, vocab=50) as path:
    assert len(list(path.glob('*.array_record'))) == bench_input.SHARDS
    source = bench_input.batches(path, workers=0)
    for batch in itertools.islice(source, 3):
      assert batch['tokens'].shape == (bench_input.ROWS, bench_input.LENGTH)
      assert batch['tokens'].max() < 50
      assert (batch['segments'] > 0).mean() > 0.8
    decoded = itertools.islice(bench_input.data_loader(path), 64)
    lengths = sorted(len(example['tokens']) for example in decoded)
  examples = bench_input.Examples(64, 50)
  assert lengths == sorted(len(examples[i]['tokens']) for i in range(64))
  assert bench_input.SHORTEST <= lengths[0] <= lengths[-1]
  assert lengths[-1] <= bench_input.LONGEST
  assert np.array_equal(examples[3]['tokens'], examples[3]['tokens'])
  assert not path.exists()
