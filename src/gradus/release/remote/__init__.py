"""Code that goes with an exported model: copied into its folder as it is, and never imported by gradus."""
