package audit

import "github.com/outrider-relay/outrider/domain"

// Advice says what mends the failure of an attempt, by its class and status; ""
// where nothing failed. setting is the flag of outrider webhook update that
// does what the advice ends with, "" for none.
func (a *Attempt) Advice() (advice, setting string) {
	switch a.ErrorClass {
	case domain.ErrorRefusedAddress:
		return "webhooks live at public addresses; allow a network of yours to the relay by OUTRIDER_ALLOW_CIDRS, or --allow-cidrs of outrider serve", ""
	case domain.ErrorDNS:
		return "check the host in the webhook's URL, and the name servers of the machine where the relay runs", ""
	case domain.ErrorConnect:
		return "is the receiver running, and does a firewall let the relay's machine reach it?", ""
	case domain.ErrorTLS:
		return "check the receiver's certificate, with its intermediate ones, and that it is for the host in the URL", ""
	case domain.ErrorTimeout:
		return "a receiver should answer first and work afterwards; or give it more time", "--timeout 15s"
	case domain.ErrorReset, domain.ErrorBody:
		return "the connection broke on the way: the logs of the receiver, or of a proxy before it, tell more", ""
	case domain.ErrorStatus, domain.ErrorNone:
	}
	switch code := a.StatusCode; {
	case a.ErrorClass == domain.ErrorNone:
		return "", ""
	case code >= 300 && code < 400:
		return "redirects are not followed: give the URL that it leads to", "--url URL"
	case code == 401, code == 403:
		return "does the receiver have the webhook's secret? outrider verify-signature tells what is wrong with a request that it got", ""
	case code == 404, code == 405:
		return "check the path of the webhook's URL, and that the receiver takes POST there", ""
	case code == 410:
		return "the receiver says that it is gone for good; a second 410 disables the webhook", ""
	case code == 429:
		return "it gets too much: allow fewer attempts at once", "--max-concurrency 2"
	default:
		return "the receiver's log tells more", ""
	}
}
