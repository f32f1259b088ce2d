"""What a person opens: evaluations as JSON and HTML, and the card of a bundle."""
