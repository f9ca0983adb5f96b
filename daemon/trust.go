package daemon

// reportWeakness logs, once, that callers are not told apart by their unit on this host. The kernel
// shows that only when the first caller has connected.
func (d *daemon) reportWeakness() {
	text := d.trust.Load().Weakness()
	if text == "" {
		return
	}
	d.weakness.Do(func() {
		d.log.WithField("reason", text).Warn("every process of a user in trust.uids may use the logins, root's containers on the host's network too")
	})
}
