//! The guide: one page per subject.
//!
//! The pages are Markdown files in `src/guide`. They are read there, here, and on a terminal with
//! `expo guide TOPIC`. Their `sh` blocks are run by `tests/docs.rs` in the order of [`PAGES`].

/// A page of the guide.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The name of its file without `.md`.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// Markdown.
    pub text: &'static str,
}

impl Page {
    /// The page of this name; `-`, spaces and case do not matter.
    pub fn find(name: &str) -> Option<Self> {
        let plain = |name: &str| name.to_lowercase().replace(['-', ' '], "_");
        let wanted = plain(name);
        PAGES.iter().copied().find(|page| page.name == wanted)
    }
}

/// Declares the pages: the list, and a module each that rustdoc shows.
///
/// A page links to others as `[text][name]` and defines `[name]: name.md` at its end, for readers of the
/// files. Of two definitions Markdown takes the first, so those in front of the text lead rustdoc to the
/// modules. A figure is `![what it shows][figure]` likewise: rustdoc cannot serve its file, so it gets an
/// empty picture there, and the figures themselves after the text.
macro_rules! pages {
    ($($name:ident $([$($figure:literal),*])?: $about:literal,)*) => {
        /// Every page, in the order in which they build on each other.
        pub const PAGES: &[Page] = &[$(Page {
            name: stringify!($name),
            about: $about,
            text: include_str!(concat!("guide/", stringify!($name), ".md")),
        }),*];

        pages! { @modules ($($name)*) $($name ($($($figure)*)?))* }
    };
    (@modules $all:tt $($name:ident $figures:tt)*) => { $(pages! { @module $name $figures $all })* };
    (@module $name:ident ($($figure:literal)*) ($($all:ident)*)) => {
        #[doc = concat!($("[", stringify!($all), "]: crate::guide::", stringify!($all), "\n",)*)]
        #[doc = concat!($("[", $figure, "]: data:image/gif;base64,R0lGODlhAQABAAAAACw=\n",)*)]
        #[doc = ""]
        #[doc = include_str!(concat!("guide/", stringify!($name), ".md"))]
        $(
            #[doc = "\n<figure>"]
            #[doc = include_str!(concat!("guide/figures/", $figure, ".svg"))]
            #[doc = "</figure>\n"]
        )*
        pub mod $name {}
    };
}

pages! {
    data: "files, hub datasets, columns, formats, chat templates, skipped rows",
    training: "SFT, preference training, what to watch, memory, sweeps",
    adapters: "LoRA, rsLoRA, DoRA: layers, learning rate, PEFT's files",
    losses: "which loss first, EXPO in practice, weighted sums, the list",
    config: "every config key with its default",
    resume: "interruptions, checkpoints, changed configs, disk space",
    ranks: "several processes of one run: MPI, lanes, failures",
    sampling: "responses from a model, samples for cEXPO, AlpacaEval outputs",
    evaluation: "preference sets, win rates, diversity, the report page",
    stories: "the quickstart's task, where the true preference is known",
    bandit["interpolation", "preservation"]: "the papers' synthetic experiments and their figures",
    gpu: "the CUDA build, device and dtype, what is proved without a GPU",
    speed: "beside TRL and PyTorch: how it is measured, where it comes from",
    metrics: "every name in metrics.jsonl",
    files: "what is in a run's directory",
    exit_codes: "what a script can rely on",
    differences: "where implementations disagree",
    correctness: "how correctness is shown",
    extending: "add a loss, a model family, a dataset format",
    faq: "questions of new users",
}
