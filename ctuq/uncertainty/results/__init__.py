"""What a reconstruction leaves behind: images, volumes, their files, and what they answer."""
