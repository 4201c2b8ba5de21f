"""Speed and memory as ratios against named peers in the same run. Never part of the product."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")  # ours and theirs
