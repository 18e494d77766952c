package domain

// Refusal says why something that was asked for was refused where its state is
// kept: what is wrong is not known before, since it depends on that state.
type Refusal string

// The kinds of refusals.
const (
	RefusedNot     Refusal = ""        // it was not refused: something failed
	RefusedInvalid Refusal = "invalid" // what was asked for can never be done
	RefusedMissing Refusal = "missing" // it names something that is not there
	RefusedState   Refusal = "state"   // things are not in a state in which it can be done
)
