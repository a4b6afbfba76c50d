//! The two kinds of repositories, and where the hub has each.

use hf_hub::Repo;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// As messages name it.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }

    /// The path below which the hub describes repositories.
    pub(super) fn api(self) -> &'static str {
        match self {
            Self::Model => "/api/models/",
            Self::Dataset => "/api/datasets/",
        }
    }

    /// The path below which it has their files.
    pub(super) fn files(self) -> &'static str {
        match self {
            Self::Model => "/",
            Self::Dataset => "/datasets/",
        }
    }

    /// The name of a repository's directory in the cache.
    pub(super) fn directory(self, name: &str) -> String {
        match self {
            Self::Model => Repo::model(name.to_owned()),
            Self::Dataset => Repo::dataset(name.to_owned()),
        }
        .folder_name()
    }

    /// What a message says first where there is no repository of the name: a model may be a directory.
    pub(super) fn not_here(self) -> &'static str {
        match self {
            Self::Model => "no such directory, and ",
            Self::Dataset => "",
        }
    }
}
