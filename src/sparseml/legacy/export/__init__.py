"""Writing a trained model and samples of its data in the forms that it is deployed in."""
