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
  --listen URL              May be repeated [default: ws://127.0.0.1:0]
                            ws://IP:PORT      port 0 takes a free one
                            unix:///PATH      a socket file, mode 0600
                            vsock://CID:PORT  CID may be `any`
                            fd://N, systemd, systemd://NAME
                                              inherited sockets
                            stdio             one client, no other --listen
                            The URLs in use are the first lines on standard
                            output.
  --allow-uid UID           A user who may connect by socket files, too, beside
                            root and this one; may be repeated
  --concurrent-requests N   Accepted for compatibility; requests never wait for
                            each other here.

Who may connect (--ws-: WebSocket only):
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

Limits (N: a number; TIME: seconds, or such as 500ms; BYTES: a number, or with
the suffix k, KiB, m, MiB, g or GiB):
  --max-connections N       Connections [4096]
  --max-handshakes N        Connections without a whole request [256]
  --upgrade-timeout TIME    For the HTTP request [10s]
  --initialize-timeout TIME  For initialize, then [60s]
  --ping-interval TIME      A client silent so long is pinged [30s]
  --silence-limit TIME      One silent so long is cut off [90s]
  --probe-limit TIME        The same if its session is wanted [5s]
  --max-sessions N          Sessions [4096]
  --session-ttl TIME        Of a session without a connection [80s]
  --max-message-bytes BYTES  One message [64MiB]
  --max-unfinished-bytes BYTES  Requests of a connection [128MiB]
  --max-unread-bytes BYTES  Answers it does not read [64MiB]
  --max-unread-answers N    Their number [65536]
  --max-requests N          Requests it has no answer to [16384]
  --max-long-polls N        Reads of it that wait [1024]
  --max-file-calls N        File calls of it [4096]
  --max-file-handles N      Files it has open [128]
  --max-file-workers N      Threads for file calls [64]
  --max-processes N         Processes of a session [16384]
  --max-running N           Running processes of all [4096]
  --retain-ended TIME       How long an ended one can be read [80s]
  --retain-bytes BYTES      Output kept of a process [1MiB]
  --retain-events N         Pieces of output kept of it [16384]
  --retain-total-bytes BYTES  Output kept of all [256MiB]
  --stdin-soft-bytes BYTES  Unread input: writes wait [1MiB]
  --stdin-hard-bytes BYTES  Unread input: writes fail [64MiB]
  --stdin-total-bytes BYTES  Unread input of all: writes fail [256MiB]
  --drain-limit TIME        For requests after the end of input [2s]
  --shutdown-limit TIME     For the end of the server [2s]

Other:
  --metrics                 Answer GET /metrics, to whoever may connect
  --drain-timeout TIME      How long commands may go on after SIGTERM [0]
  --log-level LEVEL         off, error, warn, info, debug or trace, to standard
                            error [default: warn]
  --log-format FORMAT       text or json, a line each [default: text]
  -h, --help                Print this page
  -V, --version             Print the version

A flag takes its value as `--flag value` or `--flag=value`.
";
