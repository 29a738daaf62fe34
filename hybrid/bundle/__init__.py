"""A folder with all that a site without internet needs: made here, checked and loaded there."""
