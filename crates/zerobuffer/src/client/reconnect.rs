//! What happens to requests when a server disconnects: a call is made again, or the client connects to the
//! next server and sends again what the previous one had not started.

use super::channel::ClientChannel;
use super::connection::{Connection, TwoBuffers};
use super::lifeline::Begun;
use super::number::Number;
use super::resend::until_started;
use super::seal::Sealed;
use super::{Client, Reconnected, Response};
use crate::error::{Error, RequestState, Result};
use crate::v1::Patience;
use crate::v2::layout::Demand;
use crate::v2::ring::Held;
use crate::wait::Deadline;
use std::time::Duration;

impl Client {
    /// A call from where it stands: sent as `sent`, or not yet.
    #[cold]
    pub(super) fn call_slowly(
        &mut self,
        data: &[u8],
        sent: Option<Number>,
        timeout: Duration,
    ) -> Result<Held> {
        let deadline = Deadline::after(timeout);
        until_started(
            &mut (self, sent),
            |(client, sent)| {
                // It keeps the kind of channel that it has found.
                let Connection::InPlace(channel) = &client.connection else {
                    return Err(Error::Closed);
                };
                match sent.take() {
                    Some(number) => channel.receive_for(number, &deadline),
                    None => call(channel, data, &deadline),
                }
            },
            |(client, _)| client.mend(&deadline),
        )
    }

    /// The same over two buffers.
    pub(super) fn call_over_two_buffers(
        &mut self,
        data: &[u8],
        timeout: Duration,
    ) -> Result<Response<'_>> {
        let deadline = Deadline::after(timeout);
        let received = until_started(
            self,
            |client| {
                let Connection::TwoBuffers(channel) = &client.connection else {
                    return Err(Error::Closed);
                };
                let sent = channel.send(data, &deadline, Patience::None);
                channel.receive_or_cancel(sent.map_err(Error::never_sent)?, &deadline)
            },
            |client| client.mend(&deadline),
        );
        received.map(Response::of_two_buffers)
    }

    /// Connects to the next server to send a call's request there, if it is to be sent again.
    fn mend(&mut self, deadline: &Deadline) -> Result<bool> {
        // Of what else was in flight nobody would hear.
        let alone = || match &self.connection {
            Connection::InPlace(channel) => channel.seal().pending().next().is_none(),
            Connection::TwoBuffers(channel) => channel.in_flight() == 0,
        };
        if !self.config.resend_not_started || !alone() {
            return Ok(false);
        }
        self.reconnect_by(deadline).map(|_| true)
    }

    pub(super) fn reconnect_by(&mut self, deadline: &Deadline) -> Result<Reconnected> {
        if !self.connection.is_this_process() {
            return Err(Error::WrongProcess);
        }
        let begun = self.life.begin()?;
        match &self.connection {
            Connection::InPlace(_) => self.reconnect_in_place(begun, deadline),
            Connection::TwoBuffers(_) => self.reconnect_to_two_buffers(begun, deadline),
        }
    }

    fn reconnect_in_place(&mut self, begun: Begun, deadline: &Deadline) -> Result<Reconnected> {
        let Connection::InPlace(previous) = &self.connection else { return Err(Error::Closed) };
        if !previous.is_closed() && previous.has_server() {
            self.unreported = previous.seal().report();
            previous.leave();
        }
        let (life, name) = (&self.life, &previous.segment.name);
        let is_closed = || life.closed_since(begun);
        let channel = ClientChannel::attach(name, &self.config, deadline, false, &is_closed)?;
        life.renew(begun, &channel)?;
        let sealed = previous.seal();
        channel.count_on(sealed);
        let lost = std::mem::take(&mut self.unreported);
        let mut report = Reconnected { resent: Vec::new(), lost };
        // What was cancelled is in the list; responses that had arrived are still pending in the table.
        if !previous.is_closed() {
            let resends = self.config.resend_not_started;
            let moving = Moving { previous, channel: &channel, deadline };
            moving.move_requests(sealed, resends, &mut report);
        }
        self.connection = Connection::InPlace(channel);
        Ok(report)
    }

    /// The response buffer has one name, so the previous connection goes before the next one comes; what it
    /// leaves is remembered meanwhile.
    fn reconnect_to_two_buffers(
        &mut self,
        begun: Begun,
        deadline: &Deadline,
    ) -> Result<Reconnected> {
        let Connection::TwoBuffers(previous) = &self.connection else { return Err(Error::Closed) };
        self.unreported.extend(previous.replace());
        let life = &self.life;
        let is_closed = || life.closed_since(begun);
        let (name, next) = (previous.name(), previous.next_number());
        let channel = TwoBuffers::connect(name, &self.config, deadline, &is_closed, next)?;
        life.renew(begun, &channel)?;
        self.connection = Connection::TwoBuffers(channel);
        let lost = std::mem::take(&mut self.unreported);
        Ok(Reconnected { resent: Vec::new(), lost })
    }
}

/// What takes requests from one connection to the next.
struct Moving<'m> {
    previous: &'m ClientChannel,
    channel: &'m ClientChannel,
    deadline: &'m Deadline,
}

impl Moving<'_> {
    /// Sends again what the previous server had not started, if that is wanted, and lists the rest.
    fn move_requests(&self, sealed: Sealed<'_>, resends: bool, report: &mut Reconnected) {
        let mut stuck = false;
        for number in sealed.pending() {
            let lost = sealed.lost_request(number, false);
            let wanted = resends && !stuck && lost.state == RequestState::NotStarted;
            match wanted.then(|| self.resend(number)) {
                Some(Ok(new)) => report.resent.push((number.for_caller(), new.for_caller())),
                outcome => {
                    // Nothing may overtake a request that could not be sent again.
                    stuck |= outcome.is_some();
                    report.lost.push(lost);
                }
            }
        }
    }

    /// Sends a request again whose bytes still lie in the previous segment.
    fn resend(&self, number: Number) -> Result<Number> {
        let unknown = Error::UnknownSequence { sequence: number.for_caller() };
        let (old, demand) = self.previous.pending_slot(number).ok_or(unknown)?;
        let data = old.data(&self.previous.segment.payload);
        let mut claim = self.channel.claim(demand, self.deadline)?;
        let len = data.len() as u64;
        claim.data_mut(&self.channel.segment.payload, len).copy_from_slice(data);
        Ok(self.channel.commit(claim, len))
    }
}

fn call(channel: &ClientChannel, data: &[u8], deadline: &Deadline) -> Result<Held> {
    let number = channel.send_slowly(data, Demand::prefer_cached(data.len() as u64), deadline);
    let number = number.map_err(Error::never_sent)?;
    channel.receive_for(number, deadline)
}
