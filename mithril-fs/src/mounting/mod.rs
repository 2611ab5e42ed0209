//! What is done to the directory around the mount itself: locks, recognition, unmounting.
