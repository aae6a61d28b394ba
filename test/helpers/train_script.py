"""The training program on the folder that ``prepared_folder`` writes; run as a script."""

from tiny_program import TINY, Tiny

from asr_core.bin.train import main

if __name__ == "__main__":
    data = {"on_the_fly_feats": True, "max_duration": 3.0, "bucketing_sampler": False}
    loop = {"log_interval": 1, "average_period": 1, "tensorboard": False}
    main(Tiny, defaults={**TINY, **data, **loop})
