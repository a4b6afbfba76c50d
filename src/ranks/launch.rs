//! How this process was launched: its rank among how many, from the variables of the launcher.
//!
//! A pure function of the environment. A launcher that runs inside another's process counts, not the
//! outer one: mpirun in a Slurm job, torchrun in a Slurm step.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// The environment of this process.
pub fn environment() -> Environment {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os();
    variables
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// What started the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// None: one process.
    None,
    /// torchrun, or another program that sets `RANK` and `WORLD_SIZE`; it starts no MPI.
    Torchrun,
    /// mpirun of Open MPI.
    OpenMpi,
    /// mpiexec of MPICH, Intel MPI or MVAPICH.
    Mpich,
    /// srun, with what it offers to an MPI library.
    Slurm(Option<Pmi>),
}

/// The interface by which an MPI library asks srun for the other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pmi {
    /// PMI-1 or PMI-2, for MPICH and its kin.
    Pmi2,
    /// PMIx, for Open MPI and for MPICH built with it.
    Pmix,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no launcher",
            Self::Torchrun => "torchrun",
            Self::OpenMpi => "mpirun of Open MPI",
            Self::Mpich => "mpiexec of MPICH",
            Self::Slurm(_) => "srun",
        })
    }
}

/// The place of this process in its launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The number of this process, from 0.
    pub rank: usize,
    /// How many processes there are.
    pub size: usize,
    /// The number of this process on its host, 0 where the launcher does not say.
    pub local: usize,
    /// What the launcher calls this launch: another one for each restart. Not every launcher has a name.
    pub id: Option<String>,
    /// What started it.
    pub launcher: Launcher,
}

/// The variables of a launcher: rank, size, local rank.
type Names = [&'static str; 3];

const TORCHRUN: Names = ["RANK", "WORLD_SIZE", "LOCAL_RANK"];
const OPEN_MPI: Names = [
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
];
const MPICH: Names = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"];
const SLURM: Names = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"];
const OLD_SLURM: Names = ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"];

/// Steps of Slurm with this number or a larger one are no steps of srun: batch scripts, interactive shells.
const RESERVED_STEPS: u32 = u32::MAX - 15;

impl Launch {
    /// What the environment says: `RANK` and `WORLD_SIZE` (torchrun), `OMPI_COMM_WORLD_*` (Open MPI),
    /// `PMI_*` (MPICH, Intel MPI), `SLURM_*` of a step. A shell in an allocation of Slurm is one process.
    ///
    /// # Errors
    /// If the variables contradict each other or are no numbers.
    pub fn parse(environment: &Environment) -> Result<Self> {
        let torchrun = Found::of(environment, &TORCHRUN)?;
        let is_elastic = environment.contains_key("TORCHELASTIC_RUN_ID");
        if let Some(found) = torchrun.filter(|_| is_elastic) {
            return Ok(found.launch(environment, Launcher::Torchrun));
        }
        let pmi = Found::whole(environment, &MPICH)?;
        let step = slurm_step(environment)?;
        // Hydra, the mpiexec of MPICH, may run inside of a step.
        let is_hydra = environment.contains_key("HYDI_CONTROL_FD");
        let is_step = step.zip(pmi).is_some_and(|(step, pmi)| step.agrees(&pmi));
        let pmi_launcher = match is_step && !is_hydra {
            true => Launcher::Slurm(Some(Pmi::Pmi2)),
            false => Launcher::Mpich,
        };
        let mpi = [
            (Found::whole(environment, &OPEN_MPI)?, Launcher::OpenMpi),
            (pmi, pmi_launcher),
        ];
        let pmix = environment.contains_key("PMIX_RANK").then_some(Pmi::Pmix);
        let slurm = (step, Launcher::Slurm(pmix));
        let generic = (torchrun, Launcher::Torchrun);
        let known = |(found, launcher): (Option<Found>, Launcher)| Some((found?, launcher));
        let found: Vec<_> = mpi.into_iter().filter_map(known).collect();
        // mpirun starts its own daemons as a step of Slurm, whose variables its processes inherit.
        let outer = if found.is_empty() { known(slurm) } else { None };
        let found: Vec<_> = found
            .into_iter()
            .chain(outer)
            .chain(known(generic))
            .collect();
        let Some((first, launcher)) = found.first() else {
            return Ok(Self::alone());
        };
        match found.iter().find(|(other, _)| !other.agrees(first)) {
            Some((other, _)) => Err(Error::input(format!(
                "the environment names two launches: {first}, {other}"
            ))
            .hint("unset the variables of the one that did not start this process")),
            None => Ok(first.launch(environment, *launcher)),
        }
    }

    fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            local: 0,
            id: None,
            launcher: Launcher::None,
        }
    }
}

/// Rank and size as one launcher's variables say.
#[derive(Clone, Copy)]
struct Found {
    names: Names,
    rank: usize,
    size: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [rank, size, _] = self.names;
        write!(f, "{rank}={} of {size}={}", self.rank, self.size)
    }
}

impl Found {
    /// Where both variables are set.
    fn of(environment: &Environment, names: &Names) -> Result<Option<Self>> {
        let [rank, size, _] = *names;
        let (Some(rank), Some(size)) = (number(environment, rank)?, number(environment, size)?)
        else {
            return Ok(None);
        };
        let found = Self {
            names: *names,
            rank,
            size,
        };
        match rank < size {
            true => Ok(Some(found)),
            false => Err(Error::input(format!("{found}: ranks count from 0"))),
        }
    }

    /// Where both variables are set; one alone is an error.
    fn whole(environment: &Environment, names: &Names) -> Result<Option<Self>> {
        let [rank, size, _] = *names;
        match (
            environment.contains_key(rank),
            environment.contains_key(size),
        ) {
            (true, false) => Err(Error::input(format!("{rank} is set without {size}"))),
            (false, true) => Err(Error::input(format!("{size} is set without {rank}"))),
            _ => Self::of(environment, names),
        }
    }

    fn agrees(&self, other: &Self) -> bool {
        (self.rank, self.size) == (other.rank, other.size)
    }

    fn launch(&self, environment: &Environment, launcher: Launcher) -> Launch {
        let [_, _, local] = self.names;
        let local = [local, "SLURM_LOCALID"].map(|name| number(environment, name));
        Launch {
            rank: self.rank,
            size: self.size,
            local: local.into_iter().flatten().flatten().next().unwrap_or(0),
            id: id(environment, launcher),
            launcher,
        }
    }
}

/// The step of srun that this process is of. `SLURM_*` of a whole job say nothing about a process.
fn slurm_step(environment: &Environment) -> Result<Option<Found>> {
    let step = environment.get("SLURM_STEP_ID");
    let step = step.and_then(|step| step.parse::<u32>().ok());
    match step.filter(|step| *step < RESERVED_STEPS) {
        None => Ok(None),
        Some(_) => Ok(match Found::of(environment, &SLURM)? {
            Some(found) => Some(found),
            None => Found::of(environment, &OLD_SLURM)?,
        }),
    }
}

fn id(environment: &Environment, launcher: Launcher) -> Option<String> {
    let value = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let joined = |names: &[&str]| {
        let parts: Vec<&str> = names
            .iter()
            .filter_map(|name| Some(value(name)?.as_str()))
            .collect();
        (!parts.is_empty()).then(|| parts.join("."))
    };
    let slurm = || {
        value("SLURM_STEP_ID")?;
        joined(&["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"])
    };
    match launcher {
        Launcher::None | Launcher::Mpich => None,
        Launcher::Torchrun => joined(&["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"]),
        Launcher::OpenMpi => {
            let name = value("PMIX_NAMESPACE").or_else(|| value("OMPI_MCA_ess_base_jobid"));
            name.cloned()
        }
        Launcher::Slurm(_) => slurm(),
    }
}

fn number(environment: &Environment, name: &str) -> Result<Option<usize>> {
    let Some(text) = environment.get(name) else {
        return Ok(None);
    };
    let wrong = || Error::input(format!("{name} is {text:?}")).hint("expected a whole number");
    text.trim().parse().map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &str) -> Result<Launch> {
        let pairs = variables
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Launch::parse(&environment.collect())
    }

    const STEP: &str =
        "SLURM_JOB_ID=17 SLURM_STEP_ID=3 SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_LOCALID=0";

    #[test]
    fn every_launcher_says_its_ranks() {
        let step = |more: &str| format!("{STEP} {more}");
        let elastic = "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 TORCHELASTIC_RUN_ID=a";
        let open_mpi = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=3";
        let hydra = "PMI_RANK=3 PMI_SIZE=4 MPI_LOCALRANKID=1 HYDI_CONTROL_FD=7";
        for (variables, want) in [
            ("HOME=/root", "0 of 1, 0, -, None"),
            (elastic, "5 of 8, 1, a, Torchrun"),
            (
                &format!("{elastic} TORCHELASTIC_RESTART_COUNT=2"),
                "5 of 8, 1, a.2, Torchrun",
            ),
            ("RANK=1 WORLD_SIZE=2", "1 of 2, 0, -, Torchrun"),
            (open_mpi, "1 of 3, 0, -, OpenMpi"),
            (
                &format!("{open_mpi} OMPI_COMM_WORLD_LOCAL_RANK=1 PMIX_NAMESPACE=7 PMIX_RANK=1"),
                "1 of 3, 1, 7, OpenMpi",
            ),
            (hydra, "3 of 4, 1, -, Mpich"),
            (STEP, "2 of 4, 0, 17.3, Slurm(None)"),
            (
                &step("PMIX_RANK=2 SLURM_STEP_NUM_TASKS=3 SLURM_RESTART_COUNT=1"),
                "2 of 3, 0, 17.3.1, Slurm(Some(Pmix))",
            ),
            (
                &step("PMI_RANK=2 PMI_SIZE=4"),
                "2 of 4, 0, 17.3, Slurm(Some(Pmi2))",
            ),
            // A launcher inside a step of Slurm.
            (&step(hydra), "3 of 4, 1, -, Mpich"),
            (&step("PMI_RANK=7 PMI_SIZE=8"), "7 of 8, 0, -, Mpich"),
            (&step(open_mpi), "1 of 3, 0, -, OpenMpi"),
            (&step(elastic), "5 of 8, 1, a, Torchrun"),
            // A script that says the same for torch's sake.
            (
                &step("PMIX_RANK=2 RANK=2 WORLD_SIZE=4"),
                "2 of 4, 0, 17.3, Slurm(Some(Pmix))",
            ),
        ] {
            let Launch {
                rank,
                size,
                local,
                id,
                launcher,
            } = parse(variables).unwrap();
            let id = id.as_deref().unwrap_or("-");
            let is = format!("{rank} of {size}, {local}, {id}, {launcher:?}");
            assert_eq!(is, want, "{variables}");
        }
    }

    #[test]
    fn a_shell_in_an_allocation_and_half_a_launch_are_one_process() {
        for variables in [
            "SLURM_JOB_ID=17 SLURM_NTASKS=4",
            "SLURM_JOB_ID=17 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0",
            // The interactive step of salloc, and a batch script.
            "SLURM_JOB_ID=17 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967290",
            "SLURM_JOB_ID=17 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967291",
            "WORLD_SIZE=8",
            "RANK=3",
        ] {
            assert_eq!(parse(variables), Ok(Launch::alone()), "{variables}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (variables, words) in [
            (
                "RANK=0 WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4",
                "OMPI_COMM_WORLD_RANK=1 of OMPI_COMM_WORLD_SIZE=4, RANK=0 of WORLD_SIZE=1",
            ),
            (
                "PMI_RANK=0 PMI_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2",
                "names two launches: ",
            ),
            ("PMI_RANK=1", "PMI_RANK is set without PMI_SIZE"),
            ("OMPI_COMM_WORLD_SIZE=1", "without OMPI_COMM_WORLD_RANK"),
            (
                "PMI_RANK=4 PMI_SIZE=4",
                "PMI_RANK=4 of PMI_SIZE=4: ranks count",
            ),
            ("RANK=one WORLD_SIZE=4", "RANK is \"one\"; expected a whole"),
            ("RANK=0 WORLD_SIZE=-1", "WORLD_SIZE is \"-1\""),
        ] {
            let error = parse(variables).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(words), "{variables}: {error}");
        }
    }
}
