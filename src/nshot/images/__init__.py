"""A source as a person names it -> an upright RGB image -> the pixels that an encoder takes."""
