//! How several processes find each other and agree.
//!
//! [`Launch`] reads the launcher's environment, [`open`] connects the processes that it names, by MPI or, where
//! torchrun started them, by NCCL, and
//! [`agree`] compares what must be the same at all of them. What they exchange goes through
//! [`Ranks`].

mod agree;
mod lanes;
mod launch;
mod rendezvous;
mod share;

use std::time::Duration;

pub use crate::kernels::ranks::{Ranks, listed, tree};
pub use agree::agree;
pub use lanes::{check_lanes, lanes, pieces};
pub use launch::{Environment, Launch, Launcher, Pmi, environment};
pub use share::{share, share_results};

use crate::error::{Error, Result};
use crate::kernels::device::{gpu, gpus, set_own_gpu};
use crate::kernels::ranks::library::{Abi, Library};
use crate::kernels::ranks::nccl::Nccl;

/// Names the MPI library, by path or by name.
pub const LIBRARY: &str = "EXPO_MPI_LIBRARY";

/// Names the NCCL library, by path or by name.
pub const NCCL_LIBRARY: &str = "EXPO_NCCL_LIBRARY";

/// What NCCL is called where nothing names it.
const NCCL: &str = "libnccl.so.2";

#[cfg(not(target_os = "macos"))]
const OPEN_MPI: &[&str] = &["libmpi.so.40"];
#[cfg(not(target_os = "macos"))]
const MPICH: &[&str] = &["libmpi.so.12", "libmpich.so.12"];
#[cfg(not(target_os = "macos"))]
const STANDARD: &[&str] = &["libmpi_abi.so.1", "libmpi_abi.so.0"];
#[cfg(target_os = "macos")]
const OPEN_MPI: &[&str] = &["libmpi.40.dylib"];
#[cfg(target_os = "macos")]
const MPICH: &[&str] = &["libmpi.12.dylib", "libmpich.12.dylib"];
#[cfg(target_os = "macos")]
const STANDARD: &[&str] = &["libmpi_abi.1.dylib", "libmpi_abi.0.dylib"];

/// Connects the processes of the launch that the environment names. One process needs no library.
/// A call fails that makes no progress within `limit`. Where there are GPUs each process takes one of its own.
///
/// # Errors
/// If the environment contradicts itself, there is no MPI library, or it is not that of the launcher: each
/// process would take itself for the only one. By torchrun if there is no NCCL, or no GPU for each process.
pub fn open(environment: &Environment, limit: Duration) -> Result<Ranks> {
    let launch = Launch::parse(environment)?;
    if launch.size == 1 {
        return Ok(Ranks::alone());
    }
    match own_gpu(&launch, gpus().unwrap_or(0)) {
        Ok(None) => {}
        Ok(Some(own)) => {
            set_own_gpu(own);
            if launch.launcher == Launcher::Torchrun {
                return by_nccl(environment, &launch, own, limit);
            }
        }
        Err(error) if launch.launcher == Launcher::Torchrun => return Err(error),
        // Ranks of MPI may compute on CPUs; where they want a GPU they are told that it is not there.
        Err(_) => set_own_gpu(launch.local),
    }
    check_launcher(&launch)?;
    let library = find(environment, launch.launcher)?;
    check_library(&launch, &library)?;
    let ranks = Ranks::start(&library, nccl(environment), limit)?;
    match (ranks.rank(), ranks.size()) == (launch.rank, launch.size) {
        true => Ok(ranks),
        false => {
            let seen = format!("{} of {}", ranks.rank(), ranks.size());
            Err(foreign(
                &launch,
                &library,
                &format!("takes it for rank {seen}"),
            ))
        }
    }
}

/// The number of the GPU that a process takes of the `gpus` that it sees; `None` where it sees none. Where a launcher
/// shows each process its own there is one.
fn own_gpu(launch: &Launch, gpus: usize) -> Result<Option<usize>> {
    let Launch { rank, local, .. } = *launch;
    match gpus {
        0 => Ok(None),
        1 => Ok(Some(0)),
        several if local < several => Ok(Some(local)),
        several => {
            let number = local + 1;
            let fact =
                format!("rank {rank} is process {number} of its host, which has {several} GPUs");
            Err(Error::input(fact).hint("start as many processes on each host as it has GPUs"))
        }
    }
}

/// Files that may be NCCL.
fn nccl(environment: &Environment) -> Vec<String> {
    let named = environment
        .get(NCCL_LIBRARY)
        .filter(|name| !name.is_empty());
    vec![named.map_or(NCCL, String::as_str).to_owned()]
}

/// Connects processes that have a GPU each, and no MPI.
fn by_nccl(
    environment: &Environment,
    launch: &Launch,
    own: usize,
    limit: Duration,
) -> Result<Ranks> {
    let nccl = Nccl::open(&nccl(environment)).map_err(|error| {
        error.hint(format!(
            "install NCCL, which PyTorch brings along as nvidia/nccl/lib/{NCCL}, or name it in {NCCL_LIBRARY}"
        ))
    })?;
    let device = gpu(own)?;
    let (id, announced) = rendezvous::id(environment, launch, &nccl, limit)?;
    let place = (launch.rank, launch.size);
    let ranks = Ranks::start_on_gpus(nccl, id, place, &device, limit)?;
    drop(announced);
    Ok(ranks)
}

/// Refuses launchers that give processes no way to find each other by MPI: some libraries end the process
/// while they are initialized, where no error can be caught.
fn check_launcher(launch: &Launch) -> Result<()> {
    let Launch { rank, size, .. } = launch;
    match launch.launcher {
        Launcher::Torchrun => Err(Error::input(format!(
            "this is rank {rank} of {size} by RANK and WORLD_SIZE (torchrun), which starts no MPI, and there is \
             no GPU"
        ))
        .hint("on CPUs start the processes with mpirun or srun")),
        Launcher::Slurm(None) => Err(Error::input(format!(
            "srun started rank {rank} of {size} without PMI, by which MPI finds the others"
        ))
        .hint("set SLURM_MPI_TYPE to pmix (Open MPI) or pmi2 (MPICH), or use mpirun")),
        Launcher::None | Launcher::OpenMpi | Launcher::Mpich | Launcher::Slurm(Some(_)) => Ok(()),
    }
}

/// Opens the library that the environment names, else the one that fits the launcher, else any.
fn find(environment: &Environment, launcher: Launcher) -> Result<Library> {
    let named = environment.get(LIBRARY).filter(|name| !name.is_empty());
    if let Some(name) = named {
        return Library::open(std::slice::from_ref(name)).map_err(|error| error.at(LIBRARY));
    }
    let order = match launcher {
        Launcher::Mpich | Launcher::Slurm(Some(Pmi::Pmi2)) => [MPICH, STANDARD, OPEN_MPI],
        _ => [OPEN_MPI, STANDARD, MPICH],
    };
    let names: Vec<String> = order.concat().iter().map(ToString::to_string).collect();
    Library::open(&names).map_err(|error| {
        error.hint(format!(
            "install the MPI of the launcher, or name its library in {LIBRARY}"
        ))
    })
}

/// Refuses before it is initialized the library of an MPI that is surely another one than the launcher's.
fn check_library(launch: &Launch, library: &Library) -> Result<()> {
    match (launch.launcher, library.abi()) {
        (Launcher::OpenMpi, Abi::Mpich) => Err(foreign(launch, library, "is of MPICH")),
        _ => Ok(()),
    }
}

fn foreign(launch: &Launch, library: &Library, what: &str) -> Error {
    let Launch {
        rank,
        size,
        launcher,
        ..
    } = launch;
    let name = library.name();
    Error::input(format!(
        "{launcher} started this process as rank {rank} of {size}, but the library {name} {what}"
    ))
    .hint(format!(
        "use the launcher of the library's MPI, or name the library of the launcher's in {LIBRARY}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(variables: &[(&str, &str)]) -> String {
        let own = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        let environment = variables.iter().map(own).collect();
        let error = open(&environment, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn each_process_of_a_host_takes_a_gpu_of_its_own() {
        let launch = |local| Launch {
            rank: 5,
            size: 8,
            local,
            id: None,
            launcher: Launcher::Torchrun,
        };
        assert_eq!(own_gpu(&launch(1), 0).unwrap(), None);
        assert_eq!(own_gpu(&launch(1), 1).unwrap(), Some(0));
        assert_eq!(own_gpu(&launch(1), 4).unwrap(), Some(1));
        let error = own_gpu(&launch(2), 2).unwrap_err().to_string();
        assert!(error.starts_with("rank 5 is process 3 of its host, which has 2 GPUs"));
    }

    #[test]
    fn one_process_needs_no_library() {
        let environment = [(LIBRARY.to_owned(), "/nowhere/libmpi.so".to_owned())];
        let ranks = open(&environment.into(), Duration::from_secs(1)).unwrap();
        assert_eq!((ranks.size(), ranks.library()), (1, None));
    }

    #[test]
    fn processes_that_cannot_find_each_other_are_refused() {
        if gpus().unwrap_or(0) == 0 {
            let text = refused(&[("RANK", "1"), ("WORLD_SIZE", "3")]);
            assert!(text.contains("rank 1 of 3 by RANK"), "{text}");
            assert!(text.ends_with("start the processes with mpirun or srun"));
        }
        let step = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "1"),
            ("SLURM_NTASKS", "2"),
        ];
        let text = refused(&step);
        assert!(text.contains("without PMI"), "{text}");
        let text = refused(&[
            ("PMI_RANK", "0"),
            ("PMI_SIZE", "2"),
            (LIBRARY, "/nowhere/libmpi.so"),
        ]);
        assert!(
            text.starts_with("EXPO_MPI_LIBRARY: no MPI library: "),
            "{text}"
        );
    }
}
