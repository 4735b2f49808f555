//! Files that hold a secret: one line, readable by their owner only.

use std::{fs::File, io::Read as _, path::Path};

use secrecy::{SecretString, zeroize::Zeroizing};

/// Far beyond any API key or password; a larger file is the wrong file.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Why a secret cannot be taken from its file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("the secret file {path} cannot be read: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("the secret file {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else than one line.
    #[error("the secret file {path} must hold one line of 1 to {SECRET_BYTES_MAX} visible characters and nothing else")]
    Form {
        /// The file.
        path: String,
    },
}

/// Reads a secret from its file, without the line end.
///
/// # Errors
/// When the file cannot be read, can be read by others than its owner, or does not hold exactly one line.
pub fn read_secret_file(path: &Path) -> Result<SecretString, SecretFileError> {
    let name = || path.display().to_string();
    let io = |source| SecretFileError::Io { path: name(), source };
    // Asked before opening, because opening a pipe waits for whoever writes to it.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(SecretFileError::Form { path: name() });
    }
    let file = File::open(path).map_err(io)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretFileError::Mode { path: name(), mode });
        }
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    let text = std::str::from_utf8(&bytes).map(str::trim_ascii).unwrap_or_default();
    let is_one_line = !text.is_empty()
        && bytes.len() as u64 <= SECRET_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_one_line { Ok(SecretString::from(text)) } else { Err(SecretFileError::Form { path: name() }) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_secret_is_the_one_line_of_its_file() {
        let secret = read_secret_file(file(b"SG.abc def\n", 0o600).path()).unwrap();
        assert_eq!(secret.expose_secret(), "SG.abc def");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_way_out() {
        for mode in [0o640, 0o604, 0o644] {
            let file = file(b"canary-1f", mode);
            let error = read_secret_file(file.path()).unwrap_err();
            assert!(matches!(error, SecretFileError::Mode { mode: found, .. } if found == mode));
            assert!(error.to_string().contains("chmod 600"), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn anything_but_one_line_is_refused_unquoted() {
        let long = vec![b'a'; 5_000];
        let wrong: [&[u8]; 5] = [b"", b"\n \n", b"canary\nsecond", b"can\0ary", &long];
        for content in wrong {
            let error = read_secret_file(file(content, 0o600).path()).unwrap_err();
            assert!(matches!(error, SecretFileError::Form { .. }));
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_secret_file(folder.path()), Err(SecretFileError::Form { .. })));
        assert!(matches!(read_secret_file(&folder.path().join("none")), Err(SecretFileError::Io { .. })));
    }
}
