//! Where models are: directories, versions, and what they hold.
