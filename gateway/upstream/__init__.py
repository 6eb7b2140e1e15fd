"""HTTP callbacks to the customer's backend: what is asked and waited for, and what it is only told."""
