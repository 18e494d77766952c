package relay

// chores are done one after the other: changes of webhooks, and what is asked
// about one. Thousands may have to be at once, since the network is down, and the
// recorder needs connections too.
type chores struct {
	waiting []func(done func())
	busy    bool
}

// add lets a chore be done when it is its turn. It calls done when it is over.
func (c *chores) add(chore func(done func())) {
	c.waiting = append(c.waiting, chore)
	c.next()
}

func (c *chores) next() {
	if c.busy || len(c.waiting) == 0 {
		return
	}
	chore := c.waiting[0]
	c.waiting[0] = nil
	c.waiting = c.waiting[1:]
	c.busy = true
	chore(func() {
		c.busy = false
		c.next()
	})
}
