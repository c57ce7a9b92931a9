"""What runs inside the jail, where it is imported by its bare name: nothing here may import from azr_nemo."""
