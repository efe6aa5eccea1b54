#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use trireme_protocol::TensorData;

use super::*;

/// A shared memory object that is unlinked at the end of its test.
struct Object(String);

impl Object {
    fn new(test: &str, length: u64) -> Self {
        let key = format!("/trireme_unit_{}_{test}", std::process::id());
        let file = File::create(format!("/dev/shm{key}")).unwrap();
        file.set_len(length).unwrap();
        file.write_all_at(&[7; 4], 4).unwrap();
        Self(key)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/dev/shm{}", self.0));
    }
}

fn part(offset: u64, byte_size: u64) -> SharedMemoryRef {
    SharedMemoryRef { region: "r".to_owned(), offset, byte_size }
}

fn read(region: &Arc<Used>, offset: u64, byte_size: u64) -> Result<Bytes, ServeError> {
    match region.take(&part(offset, byte_size))? {
        TensorData::Bytes(bytes) => Ok(bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bounds_hold_at_registration_and_at_use() {
    let object = Object::new("bounds", 64);
    let memory = SharedMemory::new(true);
    let invalid = "failed to register shared memory region 'r': invalid args";
    for (offset, size) in [(0, 65), (64, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
        assert_eq!(memory.register("r", &object.0, offset, size).unwrap_err().message, invalid);
    }
    memory.register("r", &object.0, 4, 60).unwrap();
    assert_eq!(
        memory.register("r", &object.0, 0, 1).unwrap_err().message,
        "shared memory region 'r' already in manager"
    );
    let refusal = |offset, size| memory.find(&part(offset, size)).unwrap_err().message;
    assert_eq!(refusal(60, 0), "Invalid offset for shared memory region: 'r'");
    assert_eq!(refusal(59, 2), "Invalid offset + byte size for shared memory region: 'r'");
    assert_eq!(refusal(1, u64::MAX), "Invalid offset + byte size for shared memory region: 'r'");
    let region = memory.find(&part(0, 60)).unwrap();
    assert_eq!(read(&region, 0, 5).unwrap(), &[7, 7, 7, 7, 0][..]);
    region.write(58, &[1, 2]).unwrap();
    assert_eq!(read(&region, 57, 3).unwrap(), &[0, 1, 2][..]);
}

#[test]
fn a_client_that_shortens_its_object_gets_an_error() {
    let object = Object::new("short", 64);
    let memory = SharedMemory::new(true);
    memory.register("r", &object.0, 0, 64).unwrap();
    let file = File::options().write(true).open(format!("/dev/shm{}", object.0)).unwrap();
    file.set_len(8).unwrap();
    let region = memory.find(&part(0, 64)).unwrap();
    let error = read(&region, 0, 64).unwrap_err();
    assert!(error.message.contains("is shorter than it was"), "{error}");
}

#[test]
fn a_link_is_not_followed_and_a_directory_is_no_object() {
    let object = Object::new("target", 64);
    let link = Object(format!("/trireme_unit_{}_link", std::process::id()));
    std::os::unix::fs::symlink(format!("/dev/shm{}", object.0), format!("/dev/shm{}", link.0)).unwrap();
    let memory = SharedMemory::new(true);
    let error = memory.register("r", &link.0, 0, 64).unwrap_err();
    assert_eq!(error.message, format!("Unable to open shared memory region: '{}'", link.0));
    let directory = format!("trireme_unit_{}_directory", std::process::id());
    std::fs::create_dir(format!("/dev/shm/{directory}")).unwrap();
    let error = memory.register("r", &directory, 0, 64).unwrap_err();
    std::fs::remove_dir(format!("/dev/shm/{directory}")).unwrap();
    assert_eq!(error.message, format!("Unable to open shared memory region: '{directory}'"));
}

#[test]
fn a_region_in_use_goes_with_its_last_request() {
    let object = Object::new("use", 64);
    let memory = SharedMemory::new(true);
    memory.register("r", &object.0, 0, 64).unwrap();
    let used = memory.find(&part(0, 8)).unwrap();
    memory.unregister(None).unwrap();
    // Listed and its name taken, but of no use for others.
    assert_eq!(memory.status(None).unwrap().len(), 1);
    assert_eq!(memory.find(&part(0, 8)).unwrap_err().status, StatusCode::NotFound);
    assert!(memory.register("r", &object.0, 0, 64).is_err());
    used.write(0, &[9]).unwrap();
    let (region, also) = (Arc::downgrade(used.region.as_ref().unwrap()), Arc::clone(&used));
    drop(used);
    assert_eq!(region.strong_count(), 2);
    drop(also);
    // At once, not with the next call.
    assert_eq!(region.strong_count(), 0);
    assert_eq!(memory.status(None).unwrap(), []);
    assert_eq!(
        memory.status(Some("r")).unwrap_err().message,
        "Unable to find system shared memory region: 'r'"
    );
    memory.register("r", &object.0, 0, 64).unwrap();
    memory.unregister(Some("other")).unwrap();
    assert_eq!(memory.status(Some("r")).unwrap()[0].byte_size, 64);
}

#[test]
fn keys_that_are_none() {
    let memory = SharedMemory::new(true);
    for key in ["", "/", "//", "/a/b", "..", "/."] {
        let error = memory.register("r", key, 0, 1).unwrap_err();
        assert_eq!(
            error.message,
            format!("cannot register shared memory region 'r' - invalid shm key '{key}'")
        );
    }
    let reserved = memory.register("r", "//triton_python_backend_shm_region_1", 0, 1).unwrap_err();
    assert!(reserved.message.contains("reserved prefix"), "{reserved}");
    let missing = memory.register("r", "/trireme_no_such_object", 0, 1).unwrap_err();
    assert_eq!(missing.message, "Unable to open shared memory region: '/trireme_no_such_object'");
    assert_eq!(missing.status, StatusCode::Internal);
    assert!(memory.register("", "/x", 0, 1).is_err());
}

#[test]
fn nothing_is_registered_unless_it_is_allowed() {
    let memory = SharedMemory::new(false);
    let calls = [
        memory.register("r", "/x", 0, 1),
        memory.unregister(None),
        memory.register_cuda("r", &[0; 64], 0, 8),
        memory.unregister_cuda(None),
    ];
    for call in calls {
        let error = call.unwrap_err();
        assert_eq!(error.status, StatusCode::Unsupported);
        assert!(error.message.starts_with("Client shared memory is disabled"));
    }
    assert_eq!(memory.status(None).unwrap(), []);
    let cuda = SharedMemory::new(true).register_cuda("r", &[0; 64], 0, 8).unwrap_err();
    assert_eq!(cuda.message, "failed to register CUDA shared memory region: 'r', GPUs not supported");
}
