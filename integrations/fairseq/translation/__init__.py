"""What preparing a corpus and testing a translator share."""
