"""Trains one VAE, or with -m one for each job of a sweep; `python train.py --help` lists what can be set."""

if __name__ == "__main__":
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback
    from vae_lightning.launch.train import start

    sys.exit(start(sys.argv[1:]))
