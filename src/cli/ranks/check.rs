//! `expo ranks check`: the first command on a new cluster.

use std::fmt::Write;
use std::ops::Range;
use std::time::Instant;

use candle_core::{DType, Device};
use clap::Args;
use expo::error::{Error, Result};
use expo::io::lock::host;
use expo::kernels::device::{download, from_host, kind, own_gpu, zeros};
use expo::kernels::{exchange, threads};
use expo::model::device::open;
use expo::ranks::tree::Counter;
use expo::ranks::{Launch, Launcher, Ranks, agree, environment, listed};
use serde_json::json;

use super::super::dispatch::DeviceRequest;
use super::super::stop::Limit;
use super::super::{answer, launcher, version};

/// Check that the processes of a launch compute together, and how fast
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct CheckArgs {
    /// Exchange this many MB in every round
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    megabytes: u64,

    /// Measure this many rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// Fail when nothing arrives for this long, e.g. 30s or 10m
    #[arg(long, value_name = "TIME", default_value = "10m")]
    timeout: Limit,

    /// Exchange the memory of this device: auto (a GPU, if there is one), cpu, cuda, or cuda:N-M, a process for
    /// each
    #[arg(long, default_value = "auto")]
    device: String,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    /// The device that is asked for.
    pub fn device(&self) -> DeviceRequest {
        DeviceRequest::named(&self.device)
    }
}

const HELP: &str = "\
Run it under the launcher that will start expo. Rank 0 prints the MPI library
or NCCL, the hosts, the threads of a rank, its GPU, whether sums have the same
bits as in one process, and the median time of an exchange with its bandwidth:
bytes that a rank sends per second. Where there are GPUs their memory is
exchanged. All ranks must run the same version of expo. Each rank needs memory
for twice the megabytes.

A rank has a thread per core that the launcher gives it: mpirun of Open MPI
binds ranks to a core each, or to a socket, unless it is given --bind-to none.
MPICH gives every rank all cores; RAYON_NUM_THREADS sets the threads.

MPI is loaded at run time: Open MPI, MPICH and its kin, or any library of the
MPI 5 ABI. EXPO_MPI_LIBRARY names the library where it is not found. So is NCCL
(EXPO_NCCL_LIBRARY), where ranks have GPUs.

Examples:
  $ mpirun -n 4 expo ranks check
  $ torchrun --nproc-per-node 8 --no-python expo ranks check
  $ expo ranks check --device cuda:0-7
  $ srun -n 16 --mpi=pmix expo ranks check --megabytes 1000";

const ONE_PROCESS: &str = "\
1 process: nothing to exchange. A launcher starts several:
  mpirun -n 4 expo ranks check
  srun -n 4 --mpi=pmix expo ranks check
";

/// Runs the command.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let launch = Launch::parse(&environment())?;
    let ranks = launcher::connect(args.timeout.0)?;
    match ranks.library() {
        Some(library) => several(args, launch.launcher, &ranks, library),
        None if args.json => answer("{\"ranks\":1}\n"),
        None => answer(ONE_PROCESS),
    }
}

fn several(
    args: &CheckArgs,
    launcher: Launcher,
    ranks: &Ranks,
    library: &str,
) -> anyhow::Result<()> {
    // The first rank alone is heard.
    let text = |text: String| match args.json {
        true => Ok(()),
        false => answer(&text),
    };
    let hosts = hosts(ranks)?;
    let threads = threads(ranks)?;
    let size = ranks.size();
    text(format!(
        "library   {library}\nranks     {size}, started by {launcher}, on {}\nthreads   {}\n",
        in_words(&hosts),
        extremes(&threads)
    ))?;
    let device = &open(&args.device).map_err(|error| error.at_parameter("device"))?;
    let machine = kind(device)?;
    let (fact, place) = match device.is_cpu() {
        true => (std::env::consts::ARCH.to_owned(), "cpu".to_owned()),
        false => (
            machine.clone(),
            format!("cuda:{}, {machine}", own_gpu().unwrap_or(0)),
        ),
    };
    if !device.is_cpu() {
        text(format!("device    {place}, at rank 0\n"))?;
    }
    let facts = [
        ("the version of expo", version().to_owned()),
        ("the kind of machine", fact),
    ];
    agree(ranks, &facts)?;
    text(format!("version   {} at every rank\n", version()))?;
    check_sums(ranks, device)??;
    text("sums      right: at every rank the bits of one process\n".to_owned())?;
    let Times { sum, gather } = measure(ranks, device, args)?;
    let sent = args.megabytes as f64 * 1e6 * (size - 1) as f64 / size as f64;
    let speed = |seconds: f64| sent / seconds / 1e9;
    let mut line = String::new();
    for (name, seconds) in [("sum", sum), ("gather", gather)] {
        let ms = seconds * 1e3;
        let _ = writeln!(
            line,
            "{name:<9} {} MB in {ms:.1} ms, {:.2} GB/s",
            args.megabytes,
            speed(seconds)
        );
    }
    text(line)?;
    if args.json {
        let hosts = hosts
            .iter()
            .map(|(host, ranks)| json!({"host": host, "ranks": ranks}));
        let value = json!({
            "library": library,
            "launcher": launcher.to_string(),
            "version": version(),
            "ranks": size,
            "device": place,
            "hosts": hosts.collect::<Vec<_>>(),
            "threads": threads,
            "sums_equal": true,
            "megabytes": args.megabytes,
            "rounds": args.rounds,
            "sum_seconds": sum,
            "sum_gb_per_second": speed(sum),
            "gather_seconds": gather,
            "gather_gb_per_second": speed(gather),
        });
        answer(&format!("{value}\n"))?;
    }
    Ok(())
}

/// The hosts in the order of their first rank, with their ranks.
fn hosts(ranks: &Ranks) -> Result<Vec<(String, Vec<usize>)>> {
    let mut hosts: Vec<(String, Vec<usize>)> = Vec::new();
    let names = ranks.gather("host names", host().as_bytes())?;
    for (rank, name) in names.iter().enumerate() {
        let name = String::from_utf8_lossy(name);
        match hosts.iter_mut().find(|(other, _)| *other == name) {
            Some((_, ranks)) => ranks.push(rank),
            None => hosts.push((name.into_owned(), vec![rank])),
        }
    }
    Ok(hosts)
}

fn in_words(hosts: &[(String, Vec<usize>)]) -> String {
    let host = |(name, ranks): &(String, Vec<usize>)| format!("{name} ({})", listed(ranks));
    hosts.iter().map(host).collect::<Vec<_>>().join(", ")
}

/// The threads of every rank. A launcher may bind a rank to few cores.
fn threads(ranks: &Ranks) -> Result<Vec<u32>> {
    let mine = threads::count() as u32;
    let all = ranks.gather("threads", &mine.to_le_bytes())?;
    let number = |bytes: &Vec<u8>| u32::from_le_bytes(bytes[..].try_into().unwrap_or_default());
    Ok(all.iter().map(number).collect())
}

fn extremes(threads: &[u32]) -> String {
    match (threads.iter().min(), threads.iter().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most} at a rank"),
        (least, _) => format!("{} at every rank", least.unwrap_or(&0)),
    }
}

/// Longer than a chunk of the exchange at most ranks, and no multiple of it.
const VALUES: usize = (1 << 20) + 7;

/// Sums values of all ranks, and compares the bits with those of the same sum in one process. The inner
/// error is one of all ranks.
fn check_sums(ranks: &Ranks, device: &Device) -> Result<Result<()>> {
    let size = ranks.size();
    let own = values(ranks.rank());
    let whole = from_host(&own, own.len(), device)?;
    let pieces = uneven(VALUES, size);
    let range = pieces[ranks.rank()].clone();
    let mut piece = zeros(range.len(), DType::F32, device)?;
    exchange::sum(ranks, "sums", &whole, &pieces, &mut piece)?;
    let mut sum = own;
    sum[range].copy_from_slice(&download(&piece)?);
    let mut sum = from_host(&sum, sum.len(), device)?;
    exchange::gather(ranks, "sums", &pieces, &mut sum)?;
    let sum = download(&sum)?;
    let mut counter = Counter::new(size);
    (0..size).for_each(|rank| counter.add(values(rank)));
    let want = counter.finish().unwrap_or_default();
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let equal = bits(&sum) == bits(&want);
    let verdicts = ranks.gather("verdicts on sums", &[u8::from(equal)])?;
    let wrong: Vec<usize> = (0..size).filter(|&rank| verdicts[rank] != [1]).collect();
    Ok(match wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(Error::failed(format!(
            "sums at ranks {} differ from those of one process",
            listed(wrong)
        ))),
    })
}

/// Values of mixed size, so that the order of a sum shows.
fn values(rank: usize) -> Vec<f32> {
    let value = |at: usize| {
        let mut bits = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (rank as u64) << 40;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits ^= bits >> 27;
        let scale = if bits & 7 == 0 { 1e3 } else { 1.0 };
        (bits >> 32) as i32 as f32 * scale
    };
    (0..VALUES).map(value).collect()
}

/// Pieces of different lengths; the first of many is empty.
fn uneven(length: usize, count: usize) -> Vec<Range<usize>> {
    let end = |piece: usize| match (piece, count) {
        (1, 3..) => 0,
        _ => length * piece * piece / (count * count),
    };
    (0..count).map(|piece| end(piece)..end(piece + 1)).collect()
}

fn even(length: usize, count: usize) -> Vec<Range<usize>> {
    let end = |piece: usize| length * piece / count;
    (0..count).map(|piece| end(piece)..end(piece + 1)).collect()
}

/// Medians over rounds of the slowest rank, in seconds.
struct Times {
    sum: f64,
    gather: f64,
}

/// Measures after one round that warms up.
fn measure(ranks: &Ranks, device: &Device, args: &CheckArgs) -> Result<Times> {
    let what = format!("exchange of {} MB", args.megabytes);
    let values = args.megabytes as usize * 1_000_000 / size_of::<f32>();
    let (mut sums, mut gathers) = (Vec::new(), Vec::new());
    let mut whole = zeros(values, DType::F32, device)?;
    let pieces = even(values, ranks.size());
    let mut piece = zeros(pieces[ranks.rank()].len(), DType::F32, device)?;
    for _ in 0..=args.rounds {
        ranks.barrier(&what)?;
        let start = Instant::now();
        exchange::sum(ranks, &what, &whole, &pieces, &mut piece)?;
        sums.push(start.elapsed().as_secs_f64());
        ranks.barrier(&what)?;
        let start = Instant::now();
        exchange::gather(ranks, &what, &pieces, &mut whole)?;
        gathers.push(start.elapsed().as_secs_f64());
    }
    Ok(Times {
        sum: median_of_slowest(ranks, &sums[1..])?,
        gather: median_of_slowest(ranks, &gathers[1..])?,
    })
}

fn median_of_slowest(ranks: &Ranks, mine: &[f64]) -> Result<f64> {
    let bytes: Vec<u8> = mine.iter().flat_map(|time| time.to_le_bytes()).collect();
    let mut slowest = vec![0.0; mine.len()];
    for times in ranks.gather("measured times", &bytes)? {
        for (slowest, time) in slowest.iter_mut().zip(times.chunks_exact(8)) {
            let time = f64::from_le_bytes(time.try_into().unwrap_or_default());
            *slowest = f64::max(*slowest, time);
        }
    }
    slowest.sort_by(f64::total_cmp);
    Ok(slowest[slowest.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_whole_in_order() {
        for count in 1..=9 {
            for pieces in [uneven(1000, count), even(1000, count)] {
                assert_eq!(pieces.len(), count);
                let end = pieces.iter().fold(0, |end, piece| {
                    assert_eq!(piece.start, end);
                    piece.end
                });
                assert_eq!(end, 1000);
            }
        }
        assert!(uneven(1000, 4)[0].is_empty());
    }

    #[test]
    fn hosts_are_listed_with_their_ranks() {
        let hosts = [("a".to_owned(), vec![0, 1]), ("b".to_owned(), vec![2])];
        assert_eq!(in_words(&hosts), "a (0-1), b (2)");
        assert_eq!(extremes(&[4, 4]), "4 at every rank");
        assert_eq!(extremes(&[4, 1, 2]), "1 to 4 at a rank");
    }
}
