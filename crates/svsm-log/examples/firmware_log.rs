//! The way of a record: out of a firmware's channel, over a wire, into a reader.

use svsm_log::channel::LocalRecords;
use svsm_log::{Channel, Class, Decoder, ImageId, Item, PanicLocation, Stamp, Verdict};

fn main() {
    // Inside of the guest. The sink would be a serial port.
    let mut wire = Vec::new();
    let mut channel = Channel::new(&mut wire, [0; 1024], LocalRecords::Kept);
    let stamp = Stamp {
        cpu: 0,
        image: ImageId::from([0xc0, 0xff, 0xee, 0x00]),
        time: 1,
    };
    channel.text(stamp, Class::Public, "2 CPUs are up");
    channel.text(stamp, Class::Local, "the guest's secret is 42");
    let at = PanicLocation {
        file: file!(),
        line: line!(),
        column: column!(),
    };
    channel.send(stamp, |out| out.panic(stamp, at));
    channel.send(stamp, |out| out.stack_trace(stamp, [0xffff_ffff_8000_1234]));
    channel.send(stamp, |out| out.verdict(stamp, Verdict::Failed(1)));
    println!("{} record stayed inside", channel.ring().len());

    // Outside of it.
    Decoder::new().feed(&wire, |item| match item {
        Item::Record(record) => println!("{record:x?}"),
        Item::Text(text) => println!("{}", String::from_utf8_lossy(text)),
    });
}
