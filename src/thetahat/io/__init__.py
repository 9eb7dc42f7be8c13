"""What is written and read again: saved fits, folders of runs.

    values, encoders, without_rows     plain values and back: of settings, of a table's encoder, of what a fit knows without its rows
    modules                            what a network was made with, and the network again
    archive                            the file: safetensors with a description
    export                             the tensors of a network for other libraries
    saving                             a fit to a file and back;   loading: `th.load`, a file or a run
    runs                               the folder of a run: its settings, metrics and checkpoints

Bytes reach the disk through `thetahat.files` alone.
"""
