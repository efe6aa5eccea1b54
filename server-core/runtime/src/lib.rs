//! Where models live: instances, life cycle, the journey of a request.
