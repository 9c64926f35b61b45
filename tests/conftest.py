import torch

# threads of one test would wait for those of another: the suite runs a process per core
torch.set_num_threads(1)
