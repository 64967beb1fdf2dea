"""The pictogram world: a small, real text-to-image model that this project carries.

Pictograms of 32×32 pixels stand in for images, 21 of them stand in for harm. The world is
small enough to train, align and evaluate on two CPU cores, and large enough that forgetting,
over-erasure and interference between experts really happen.
"""
