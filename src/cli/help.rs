//! What `--help` prints.

/// For `sandbox`.
pub(crate) const SANDBOX: &str = "\
Tells whether this system lets the server enforce sandboxes, and if not, why.

Usage: exec-server sandbox --check

  --check             Try everything that a sandbox needs
  -h, --help          Print this page

Exit code: 0 if sandboxes can be enforced, or at least read-only ones; 1 if not.
";

/// For the server.
pub(crate) const SERVE: &str = "\
Runs commands and touches files for a client that lives elsewhere.

Usage: exec-server [serve] [FLAGS]
       exec-server run|attach|ps|cp …   (each with --help; they need a build
                                         with the feature client, the default)
       exec-server sandbox --check

Where to listen:
  --listen URL              ws://IP:PORT or stdio [default: ws://127.0.0.1:0]
                            Port 0 takes a free one. The URL in use is the first
                            line on standard output.
  --concurrent-requests N   Accepted for compatibility; requests never wait for
                            each other here.

Who may connect (WebSocket only):
  --ws-auth KIND            capability-token: the token in --ws-token-file, or
                            the one with the digest --ws-token-sha256
                            signed-bearer-token (*): a JSON Web Token, HS256
  --ws-token-file PATH      File with the token, mode 0600 or less
  --ws-token-sha256 HEX     SHA-256 digest of the token (*)
  --ws-shared-secret-file PATH
                            File with the key of signed tokens, 32 bytes or
                            more, mode 0600 or less (*)
  --ws-issuer TEXT          What a signed token must have as issuer (*)
  --ws-audience TEXT        What a signed token must have as audience (*)
  --ws-max-clock-skew-seconds N
                            How far clocks may be apart [default: 30] (*)
  --insecure-no-auth        Listen on an address other machines can reach
                            without asking for a token: whoever reaches it can
                            run anything

  (*) needs a build with the feature signed-tokens

What to keep:
  --session-ttl SECONDS     How long a session waits for its client to come
                            back [default: 80]
  --retain-bytes N          Output kept per process, in bytes, or with the
                            suffix k, KiB, m or MiB [default: 1MiB]

Other:
  --log-level LEVEL         off, error, warn, info, debug or trace, to standard
                            error [default: warn]
  -h, --help                Print this page
  -V, --version             Print the version

A flag takes its value as `--flag value` or `--flag=value`.
";
