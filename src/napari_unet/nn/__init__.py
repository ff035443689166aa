"""Everything that knows Keras: the network, its training and its application.

No file is opened here; weights and checkpoints leave through callbacks. Importing this package
loads nothing heavy: its modules load Keras through `napari_unet.nn.backend.load_keras`.
"""

__all__: list[str] = []
