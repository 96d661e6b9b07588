"""Where driving models sample the future: distances and times, denser near the car."""
import numpy as np

COUNT = 33
FRAMES_PER_SECOND = 20
T_IDXS = 10.0 * (np.arange(COUNT) / 32) ** 2  # s
X_IDXS = 192.0 * (np.arange(COUNT) / 32) ** 2  # m
LEAD_T_IDXS = np.arange(0.0, 12.0, 2.0)  # s
