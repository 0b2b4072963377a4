//! Which image is chosen, what the cache accepts, and, where NVRTC is installed, that it compiles the kernels.

use super::*;
use std::process;

fn images(list: &[(i32, Target)]) -> Vec<Image> {
    list.iter().map(|&(cuda, target)| Image { cuda, target, bytes: &[] }).collect()
}

#[test]
fn an_image_fits_the_driver_and_the_device() {
    use Target::{Compute, Sm};
    let images = images(&[
        (12060, Compute(80)),
        (12060, Sm(80)),
        (12060, Sm(86)),
        (12060, Sm(87)),
        (12060, Sm(90)),
        (13000, Sm(90)),
        (13000, Sm(120)),
        (13000, Compute(80)),
    ]);
    let chosen =
        |driver, capability| choose(&images, driver, capability).map(|image| (image.cuda, image.target));
    assert_eq!(chosen(12060, (8, 6)), Some((12060, Sm(86))), "exactly the device's");
    assert_eq!(chosen(13000, (8, 6)), Some((12060, Sm(86))), "machine code of an earlier CUDA");
    assert_eq!(chosen(13000, (9, 0)), Some((13000, Sm(90))), "the newer of two");
    assert_eq!(chosen(12080, (9, 0)), Some((12060, Sm(90))), "the newer one is too new for the driver");
    assert_eq!(chosen(13000, (8, 9)), Some((12060, Sm(86))), "an earlier minor version, not the Jetson's");
    assert_eq!(chosen(12060, (8, 7)), Some((12060, Sm(87))), "the Jetson's own");
    assert_eq!(chosen(13000, (12, 1)), Some((13000, Sm(120))));
    assert_eq!(chosen(12080, (12, 0)), Some((12060, Compute(80))), "PTX that the driver knows");
    assert_eq!(chosen(13010, (11, 0)), Some((13000, Compute(80))), "a Jetson without machine code");
    assert_eq!(chosen(12050, (9, 0)), Some((12060, Sm(90))), "machine code holds within a major version");
    assert_eq!(chosen(12050, (12, 0)), None, "PTX does not");
    assert_eq!(chosen(13000, (7, 5)), None, "too old");
}

#[test]
fn targets_are_written_as_the_compiler_does() {
    for (text, target) in [("sm_121", Target::Sm(121)), ("compute_80", Target::Compute(80))] {
        assert_eq!(text.parse(), Ok(target));
        assert_eq!(target.to_string(), text);
    }
    assert!("sm80".parse::<Target>().is_err() && "lto_80".parse::<Target>().is_err());
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(env::temp_dir().join(format!("tangelo-{name}-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_damaged_file_is_not_taken_from_the_cache() {
    let folder = Folder::new("kernel-cache");
    let path = folder.0.join("below").join("image");
    assert_eq!(cache::read(&path), None, "nothing there");
    cache::write(&path, b"image").expect("a writable folder");
    assert_eq!(cache::read(&path).as_deref(), Some(&b"image"[..]));
    let whole = fs::read(&path).expect("written");
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).expect("a writable folder");
        assert_eq!(cache::read(&path), None, "cut to {len} bytes");
    }
    for i in 0..whole.len() {
        let mut changed = whole.clone();
        changed[i] ^= 1;
        fs::write(&path, &changed).expect("a writable folder");
        assert_eq!(cache::read(&path), None, "byte {i} changed");
    }
    assert_eq!(
        fs::read_dir(path.parent().expect("a folder")).expect("it exists").count(),
        1,
        "nothing unfinished"
    );
}

#[test]
fn a_named_file_is_taken_as_it_is() {
    let folder = Folder::new("kernel-file");
    fs::create_dir_all(&folder.0).expect("a writable folder");
    let path = folder.0.join("image.ptx");
    fs::write(&path, "text").expect("a writable folder");
    assert_eq!(named(&path).expect("it exists"), b"text\0");
    let missing = named(&folder.0.join("other")).expect_err("no such file").to_string();
    assert!(missing.contains("TANGELO_KERNELS") && missing.contains("other"), "{missing}");
}

#[test]
fn what_is_no_compiler_is_refused() {
    let library =
        Compiler::load(Path::new("libtangelo-no-such-library.so")).err().expect("it does not exist");
    assert!(library.to_string().contains("libtangelo-no-such-library.so is no NVRTC"), "{library}");
}

#[test]
fn every_include_of_a_kernel_is_part_of_the_program() {
    let names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
    let texts = SOURCES.iter().filter(|(name, _)| name.ends_with(".cu")).map(|(_, text)| *text).chain([UNIT]);
    for include in texts.flat_map(str::lines).filter_map(|line| line.strip_prefix("#include ")) {
        assert!(names.contains(&include.trim().trim_matches('"')), "{include} is none of {names:?}");
    }
}

#[test]
fn the_installed_compiler_compiles_the_kernels_once() {
    let Some(compiler) = Compiler::find(i32::MAX, (8, 0)) else {
        println!("skipped: there is no NVRTC");
        return;
    };
    let folder = Folder::new("kernels");
    let target = compiler.target((8, 0));
    let first = compiled(&compiler, target, Some(&folder.0)).expect("the kernels have no mistakes");
    assert!(first.starts_with(b"\x7fELF"), "machine code");
    let path = folder.0.join(compiler.key(target));
    cache::write(&path, b"from the cache").expect("a writable folder");
    assert_eq!(compiled(&compiler, target, Some(&folder.0)).expect("it is there"), b"from the cache");
    fs::write(&path, "damaged").expect("a writable folder");
    assert_eq!(compiled(&compiler, target, Some(&folder.0)).expect("it compiles again"), first);
    assert_eq!(cache::read(&path).as_ref(), Some(&first), "and is kept again");

    let ptx = compiler.compile(Target::Compute(80)).expect("the kernels have no mistakes").image;
    assert!(ptx.ends_with(b"\0"), "the driver wants PTX to end");
    let error = compiler.compile(Target::Sm(1)).err().expect("no such device").to_string();
    assert!(error.contains("sm_1") && error.contains("install another version"), "{error}");
}
