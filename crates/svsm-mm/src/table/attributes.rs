//! What a mapping allows.

use svsm_platform::encryption::Visibility;

use crate::{Error, Result};

/// Who may do what with mapped memory. Whatever is mapped can be read.
///
/// There is no value that is writable and executable, except by
/// [`Rights::write_and_execute`], which is easy to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rights {
    write: bool,
    execute: bool,
    user: bool,
}

impl Rights {
    /// Supervisor mode reads.
    pub const READ: Self = Self {
        write: false,
        execute: false,
        user: false,
    };
    /// Supervisor mode reads and writes.
    pub const READ_WRITE: Self = Self {
        write: true,
        execute: false,
        user: false,
    };
    /// Supervisor mode reads and executes.
    pub const READ_EXECUTE: Self = Self {
        write: false,
        execute: true,
        user: false,
    };

    /// Rights of supervisor mode from flags, such as those of an ELF segment.
    ///
    /// # Errors
    /// [`Error::WriteExecute`] if both are asked for.
    pub const fn new(write: bool, execute: bool) -> Result<Self> {
        if write && execute {
            Err(Error::WriteExecute)
        } else {
            Ok(Self {
                write,
                execute,
                user: false,
            })
        }
    }

    /// Supervisor mode does everything. For code that patches itself before it protects itself,
    /// such as the page on which another CPU starts.
    #[must_use]
    pub const fn write_and_execute() -> Self {
        Self {
            write: true,
            execute: true,
            user: false,
        }
    }

    /// The same for user mode, too.
    #[must_use]
    pub const fn user(self) -> Self {
        Self { user: true, ..self }
    }

    /// Whether writing is allowed.
    #[must_use]
    pub const fn can_write(self) -> bool {
        self.write
    }

    /// Whether executing is allowed.
    #[must_use]
    pub const fn can_execute(self) -> bool {
        self.execute
    }

    /// Whether user mode may do it.
    #[must_use]
    pub const fn is_user(self) -> bool {
        self.user
    }
}

/// How the processor caches mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Cache {
    /// As ordinary memory.
    WriteBack,
    /// Not at all, as device registers.
    Uncached,
}

/// All that is said about a mapping apart from its two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Attributes {
    /// Who may do what.
    pub rights: Rights,
    /// Who else can see the memory.
    pub visibility: Visibility,
    /// How it is cached.
    pub cache: Cache,
    /// Whether translations survive a change of address space. User mappings never do.
    pub global: bool,
}

impl Attributes {
    /// Private, cached, of one address space.
    #[must_use]
    pub const fn private(rights: Rights) -> Self {
        let visibility = Visibility::Private;
        Self {
            rights,
            visibility,
            cache: Cache::WriteBack,
            global: false,
        }
    }

    /// Shared with the host, cached, of one address space.
    #[must_use]
    pub const fn shared(rights: Rights) -> Self {
        Self {
            visibility: Visibility::Shared,
            ..Self::private(rights)
        }
    }

    /// The same for all address spaces; without effect on rights of user mode.
    #[must_use]
    pub const fn global(self) -> Self {
        Self {
            global: true,
            ..self
        }
    }

    /// The same without caching.
    #[must_use]
    pub const fn uncached(self) -> Self {
        Self {
            cache: Cache::Uncached,
            ..self
        }
    }
}
