//! Compiled modules, kept on disk.
//!
//! *Why* machine code: to make it takes a second a module, some take ten, and a driver that gets PTX takes
//! as long again. It can be made where no GPU is, and be carried to where one is.

use std::io::{Result, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::module::Module;

/// Bytes of the checksum that a file ends with.
const CHECKSUM: usize = 32;

/// What NVRTC makes of a text, for a compute capability: 90 is 9.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Machine code for it alone.
    Cubin(u32),
    /// A text that drivers compile for it and for later ones.
    Ptx(u32),
}

impl Target {
    /// NVRTC's options.
    pub fn options(self) -> [String; 2] {
        let architecture = match self {
            Self::Cubin(card) => format!("sm_{card}"),
            Self::Ptx(card) => format!("compute_{card}"),
        };
        let architecture = format!("--gpu-architecture={architecture}");
        ["--std=c++17".into(), architecture]
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Cubin(_) => "cubin",
            Self::Ptx(_) => "ptx",
        }
    }
}

/// The name of a module's file: another text, target or version of NVRTC has another.
pub fn name(module: &Module, target: Target, (major, minor): (i32, i32)) -> String {
    let options = target.options();
    let mut hasher = Sha256::new();
    for part in [
        &module.text(),
        &format!("{options:?} nvrtc {major}.{minor}"),
    ] {
        hasher.update(part);
        hasher.update([0]);
    }
    format!("{:x}.{}", hasher.finalize(), target.extension())
}

/// What [`write()`] wrote; nothing where there is no such file, or not as it was written.
pub fn read(file: &Path) -> Option<Vec<u8>> {
    let mut image = std::fs::read(file).ok()?;
    let checksum = image.split_off(image.len().checked_sub(CHECKSUM)?);
    (Sha256::digest(&image)[..] == checksum).then_some(image)
}

/// Writes an image and its checksum. The file has its name only when it is whole: several runs may start
/// at once.
pub fn write(file: &Path, image: &[u8]) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder)?;
    let mut work = tempfile::NamedTempFile::new_in(folder)?;
    work.write_all(image)?;
    work.write_all(&Sha256::digest(image))?;
    work.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cuda::module::Source;
    use candle_core::DType;

    static TEXT: Source = Source {
        name: "text",
        text: "int x;",
    };

    #[test]
    fn a_damaged_file_counts_as_none() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a/b.cubin");
        assert_eq!(read(&file), None);
        for image in [&b""[..], b"machine code"] {
            write(&file, image).unwrap();
            assert_eq!(read(&file).as_deref(), Some(image));
        }
        let whole = std::fs::read(&file).unwrap();
        for len in [0, 5, CHECKSUM, whole.len() - 1] {
            std::fs::write(&file, &whole[..len]).unwrap();
            assert_eq!(read(&file), None, "{len} bytes");
        }
        let mut other = whole;
        other[3] ^= 1;
        std::fs::write(&file, other).unwrap();
        assert_eq!(read(&file), None);
    }

    #[test]
    fn text_target_and_compiler_each_change_the_name() {
        let (f32, bf16) = (TEXT.of(DType::F32).unwrap(), TEXT.of(DType::BF16).unwrap());
        let names = [
            name(&f32, Target::Cubin(90), (13, 0)),
            name(&bf16, Target::Cubin(90), (13, 0)),
            name(&f32, Target::Cubin(80), (13, 0)),
            name(&f32, Target::Ptx(90), (13, 0)),
            name(&f32, Target::Cubin(90), (13, 1)),
        ];
        let apart: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(apart.len(), names.len());
        assert!(names[0].ends_with(".cubin") && names[3].ends_with(".ptx"));
        assert_eq!(names[0], name(&f32, Target::Cubin(90), (13, 0)));
    }
}
