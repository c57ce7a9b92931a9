"""What runs inside the jail, where `comparison` is imported by its bare name: nothing here may import from azr_nemo."""
