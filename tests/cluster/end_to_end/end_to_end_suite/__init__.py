"""What the end-to-end tests are made of: the installation, its runs, their pods and their artifacts."""
