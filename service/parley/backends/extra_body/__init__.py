"""Which of the vendor parameters in a request's `extra_body` a backend passes on."""
