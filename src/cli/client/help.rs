//! What `--help` prints.

/// For `run`.
pub(crate) const RUN: &str = "\
Runs a command through a server, as if it ran here.

Usage: exec-server run [FLAGS] [--] COMMAND [ARGUMENT]...

Where:
  --connect URL       A server that listens at ws://HOST:PORT, unix:///PATH
                      or vsock://CID:PORT
  --spawn COMMAND     A server on the standard streams of a command, which sh
                      runs, such as 'ssh box exec-server --listen stdio'
                      [default: a server within this program]
  --token-file PATH   File with the token for --connect, mode 0600 or less
                      [default: the variable EXEC_SERVER_TOKEN]
  --cwd DIR           The directory to run in [default: this one, or that of
                      --connect's or --spawn's server]

How:
  -t, --tty           Give it a terminal of the size of this one; what is typed
                      goes to it as it is
  --env NAME=VALUE    Set a variable; may be repeated
  --clear-env         Set no others [default: those of this program, or what
                      the other server has, but for those with KEY, SECRET or
                      TOKEN in their names]
  --timeout SECONDS   Then SIGTERM, and five seconds later SIGKILL; also after
                      --detach, by the server
  --sandbox MODE      read-only: it can write nothing; workspace-write: nothing
                      but its directory and those for temporary files, and not
                      .git, .codex, .agents and .aws; danger-full-access: all
                      [default: danger-full-access]
  --network           Let it use the network in spite of --sandbox
  --detach            With --connect: print `SESSION PROCESS` and leave it
                      running, for `exec-server attach` and `exec-server ps`,
                      as long as the server keeps a session without a client

  -v, --verbose       Tell when the connection is lost and resumed
  -h, --help          Print this page

Standard input is forwarded, unless it is /dev/null, and so are SIGINT, SIGTERM,
SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2. The third SIGINT or SIGTERM within two
seconds kills the command. What it leaves running is killed when it has ended,
a second later if that still holds its output open.

Exit code: the command's, or 128 + n after signal n; 124 after --timeout; 125 if
running it fails here, 126 if it cannot be executed, 127 if it is not found; 141
if nobody reads its output; 2 for wrong arguments.
";

/// For `attach`.
pub(crate) const ATTACH: &str = "\
Goes on with a command that `exec-server run --detach` has left running.

Usage: exec-server attach --connect URL --session ID [FLAGS] [PROCESS]

Shows the output that the server has kept, then goes on like `exec-server run`:
with a terminal if the command has one. PROCESS is needed if there are several.
SIGHUP and SIGKILL leave the command running, as does a lost connection.

  --connect URL       The server, at ws://HOST:PORT, unix:///PATH or
                      vsock://CID:PORT
  --session ID        What `exec-server run --detach` has printed
  --token-file PATH   File with the token, mode 0600 or less
                      [default: the variable EXEC_SERVER_TOKEN]
  -v, --verbose       Tell when the connection is lost and resumed
  -h, --help          Print this page

Exit code: as with `exec-server run`.
";

/// For `ps`.
pub(crate) const LIST: &str = "\
Lists the commands of a session that run, or whose output can still be read.

Usage: exec-server ps --connect URL --session ID [FLAGS]

  --connect URL       The server, at ws://HOST:PORT, unix:///PATH or
                      vsock://CID:PORT
  --session ID        What `exec-server run --detach` has printed
  --token-file PATH   File with the token, mode 0600 or less
                      [default: the variable EXEC_SERVER_TOKEN]
  -v, --verbose       Tell when the connection is lost and resumed
  -h, --help          Print this page

BYTES is how much output the server has kept. Exit code: 0, or 1 if it fails.
";

/// For `cp`.
pub(crate) const COPY: &str = "\
Copies files from or to a server.

Usage: exec-server cp [FLAGS] SOURCE DESTINATION

One of the two is `remote:PATH`; a relative PATH counts from the directory of
the server. A DESTINATION that is a directory gets the SOURCE into it.

  --connect URL       A server that listens at ws://HOST:PORT, unix:///PATH
                      or vsock://CID:PORT
  --spawn COMMAND     A server on the standard streams of a command, which sh
                      runs, such as 'ssh box exec-server --listen stdio'
                      [default: a server within this program]
  --token-file PATH   File with the token for --connect, mode 0600 or less
                      [default: the variable EXEC_SERVER_TOKEN]
  -r, --recursive     Copy a directory with all that is in it
  -v, --verbose       Tell when the connection is lost
  -h, --help          Print this page

A file that comes here is put in its place when it is whole. One that goes to
the server is written there, unless it has less than a megabyte. The protocol
has no file modes: a new file gets the usual one, an old one keeps its own.
Links to files are followed, links to directories and what is no file left out.

Exit code: 0, or 1 if anything could not be copied; 2 for wrong arguments.
";
