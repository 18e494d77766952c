// Package bench measures what a relay does and costs: the workloads, and the
// statistics over them.
//
// It stands beside the flow. What is measured are processes: a relay, a
// receiver, and a bare HTTP client that POSTs the same bodies over as many
// connections to the same receiver, in turn with the relay, so that figures
// become ratios which hold on other machines too. Who runs it gives a Rig,
// which starts those processes and makes databases.
//
// Latencies are from the moment a producer's COMMIT has returned to the moment
// the receiver has read the body. Both are read from the clock of one machine,
// which all these processes must share; the database may be elsewhere. A clock
// that is set meanwhile fails the run.
//
// What costs shows in comparisons within a repetition: with a control, by
// turns, so that a machine that becomes slower meanwhile is not taken for what
// is measured. A history is written by SQL, entry for entry as a relay writes
// it; all else that a relay meets was inserted as a producer does.
//
// It does not judge whether deliveries are right, beyond counting that each
// event arrived, once.
package bench
