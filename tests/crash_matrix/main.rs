//! The crash matrix: for every point of a delivery at which a process may die, and for every class of provider, a
//! process dies exactly there, is started again, and the books must come out as the protocol says.
//!
//! Each row is a module, each class of provider a test in it: Brevo remembers a key (A), Infobip keeps a log (B),
//! SendGrid echoes an id (C), SMTP offers nothing (D). Each test plays the row with a scheduler and a worker as
//! processes over PostgreSQL and RabbitMQ, and, where the row has a meaning there, with one process and a file; where
//! nobody can be asked, once for each policy. [`doubt::judge`] says what must hold at the end.
//!
//! | Row | Dies |
//! |---|---|
//! | K0 | before the claim is committed |
//! | K1 | with the claim committed and no byte sent: before rendering, and before the first byte |
//! | K2 | with the request on the wire, which the provider never gets |
//! | K3 | after the provider accepted, before it answered |
//! | K4 | with the answer read and not written anywhere |
//! | K5 | with the answer in the journal and not in the ledger; and the same without a journal |
//! | K6 | does not die: the connection does, during COMMIT |
//! | K7 | with the outcome recorded and the job not acknowledged |
//! | K8 | the reconciler, before it writes what it found out |
//! | K9 | the reconciler, with a resend decided and not published |
//! | K10 | the scheduler, between two chunks of recipients |
//! | K11 | the scheduler, with the jobs published and nothing noted about it |
//! | K12 | with a callback in the spool and no answer given |
//! | K13 | with callbacks answered and not applied |
//! | K14 | with callbacks applied and still in the spool |
//! | K17 | the broker, which loses everything it had |
//! | K18 | the database, and a standby that was behind takes its place |
//! | K19 | everything, and the ledger is restored from a copy |
//! | K20 | does not die: the worker is frozen while it waits for an answer, longer than it is waited for |
//!
//! K12 to K14 are played by those who call back. Not here, because what would die is not built: K15 (a job that erases in
//! steps) and K16 (retention).

#![expect(clippy::unwrap_used, reason = "functions of tests; a failed expectation is the failed test")]

mod callbacks_come;
mod doubt;
mod hearing;
mod ledger_forgets;
mod nobody_dies;
mod playing;
mod scene;
mod scheduler_dies;
mod worker_dies;
