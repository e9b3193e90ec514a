"""Images of a left or right hand: mirroring changes the class, and rotation does not."""

import numpy as np


def hand(side):
    """An image of a hand (gray 200) with its thumb (gray 100) right or left, and its labels."""
    image = np.zeros((6, 6), np.uint8)
    image[1:5, 2:4] = 200
    image[4, 4 if side == 1 else 1] = 100
    return image, np.where(image > 0, side, 0)


def side_of(image):
    """The class, 1 or 2, by the position of the thumb, for images in any rotation."""
    gray = np.asarray(image, float)
    body, thumb = np.argwhere(gray > 150), np.argwhere((gray > 50) & (gray < 150))[0]
    if np.ptp(body[:, 0]) > np.ptp(body[:, 1]):  # upright: along the rows
        across, along = 1, 0
    else:
        across, along = 0, 1
    middle = body.mean(axis=0)
    up = np.zeros(2)
    up[along] = np.sign(middle[along] - thumb[along])  # from the thumb's end to the fingers
    right = np.zeros(2)
    right[across] = np.sign(thumb[across] - middle[across])
    return 1 if up[0] * right[1] - up[1] * right[0] < 0 else 2
