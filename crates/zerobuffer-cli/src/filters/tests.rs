use super::*;

const NO_OPTIONS: ImageOptions = ImageOptions { radius: None, area: None };

fn apply(
    filter: Filter,
    options: &ImageOptions,
    shape: Shape,
    data: &mut [u8],
) -> Result<(), String> {
    let key = Key(vec![1, 2, 3]);
    Chain::new(&[filter], Some(&key), options)?.apply(&shape.to_metadata(), data)
}

#[test]
fn byte_filters_take_any_length_and_no_metadata() {
    for len in [0, 1, 2, 3, 4, 1000] {
        let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let chain = |filter| Chain::new(&[filter], Some(&Key(vec![1, 2, 3])), &NO_OPTIONS).unwrap();
        for (filter, expected) in [
            (Filter::Echo, data.clone()),
            (Filter::Invert, data.iter().map(|b| !b).collect()),
            (Filter::Xor, data.iter().zip([1, 2, 3].iter().cycle()).map(|(b, k)| b ^ k).collect()),
        ] {
            let mut edited = data.clone();
            chain(filter).apply(&[], &mut edited).unwrap();
            assert_eq!(edited, expected, "{filter} of {len} bytes");
        }
    }
}

#[test]
fn xor_without_a_key_is_refused() {
    assert!(Chain::new(&[Filter::Xor], None, &NO_OPTIONS).is_err());
}

#[test]
fn keys_are_pairs_of_hexadecimal_digits() {
    assert_eq!("5a1F".parse(), Ok(Key(vec![0x5a, 0x1f])));
    for text in ["", "5", "5a1", "zz", "+1", "é"] {
        assert!(text.parse::<Key>().is_err(), "{text:?}");
    }
}

#[test]
fn a_frame_that_disagrees_with_its_metadata_is_refused() {
    let shape = Shape { width: 4, height: 2, channels: 3 };
    for len in [0, 23, 25] {
        let error = apply(Filter::Blur, &NO_OPTIONS, shape, &mut vec![0; len]).unwrap_err();
        assert_eq!(error, format!("the frame has {len} bytes, but its metadata says 4 x 2 x 3"));
    }
    let huge = Shape { width: u32::MAX, height: u32::MAX, channels: 4 };
    assert!(apply(Filter::Grayscale, &NO_OPTIONS, huge, &mut []).is_err());
    let none = Chain::new(&[Filter::Redact], None, &NO_OPTIONS).unwrap();
    assert!(none.apply(&[], &mut [0; 12]).unwrap_err().contains("metadata"));
}

#[test]
fn blur_keeps_a_plain_picture_and_spreads_a_point() {
    for channels in [1, 3, 4] {
        for (width, height) in [(1, 1), (2, 1), (1, 9), (7, 5), (64, 48)] {
            let shape = Shape { width, height, channels };
            let mut plain = vec![77; shape.bytes().unwrap()];
            let options = ImageOptions { radius: Some(9), area: None };
            apply(Filter::Blur, &options, shape, &mut plain).unwrap();
            assert!(plain.iter().all(|byte| byte.abs_diff(77) <= 1), "{shape}");
        }
    }
    let shape = Shape { width: 31, height: 31, channels: 1 };
    let mut point = vec![0; 31 * 31];
    point[15 * 31 + 15] = 255;
    apply(Filter::Blur, &ImageOptions { radius: Some(2), area: None }, shape, &mut point).unwrap();
    assert!(point[15 * 31 + 15] < 100 && point[14 * 31 + 15] > 0 && point[15 * 31 + 16] > 0);
    assert_eq!(point[15 * 31 + 20], 0);
}

#[test]
fn grayscale_makes_the_colours_equal_and_leaves_alpha_alone() {
    let shape = Shape { width: 2, height: 1, channels: 4 };
    let mut data = [255, 0, 0, 9, 10, 20, 30, 40];
    apply(Filter::Grayscale, &NO_OPTIONS, shape, &mut data).unwrap();
    assert_eq!(data, [54, 54, 54, 9, 18, 18, 18, 40]);
}

#[test]
fn redact_blackens_the_box_and_nothing_else() {
    let shape = Shape { width: 4, height: 3, channels: 1 };
    let area = "1,1,2,9".parse().unwrap();
    let mut data = [7; 12];
    apply(Filter::Redact, &ImageOptions { radius: None, area: Some(area) }, shape, &mut data)
        .unwrap();
    assert_eq!(data, [7, 7, 7, 7, 7, 0, 0, 7, 7, 0, 0, 7]);

    let shape = Shape { width: 1, height: 1, channels: 4 };
    let mut pixel = [1, 2, 3, 4];
    apply(Filter::Redact, &NO_OPTIONS, shape, &mut pixel).unwrap();
    assert_eq!(pixel, [0, 0, 0, 255]);
}

#[test]
fn a_box_outside_of_the_picture_is_an_error() {
    let shape = Shape { width: 4, height: 3, channels: 1 };
    let options = ImageOptions { radius: None, area: "4,0,1,1".parse().ok() };
    assert!(apply(Filter::Redact, &options, shape, &mut [7; 12]).is_err());
}

#[test]
fn boxes_are_four_numbers_with_some_area() {
    assert_eq!("1,2,3,4".parse(), Ok(Area { x: 1, y: 2, width: 3, height: 4 }));
    for text in ["", "1,2,3", "1,2,3,4,5", "1,2,0,4", "1,2,3,0", "a,2,3,4", "-1,2,3,4", "1,2,3,4,x"]
    {
        assert!(text.parse::<Area>().is_err(), "{text:?}");
    }
}

/// Pictures of every width from 1 to 40 and a few heights, with 1, 3 and 4 channels, full of noise.
fn small_pictures() -> impl Iterator<Item = (Shape, Vec<u8>)> {
    let sides = (1..=40).flat_map(|width| [1, 2, 3, 5, 12].map(|height| (width, height)));
    let shapes = sides
        .flat_map(|(width, height)| [1, 3, 4].map(|channels| Shape { width, height, channels }));
    shapes.map(|shape| {
        let mut state = shape.width * 31 + shape.height * 7 + shape.channels;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        (shape, noise.take(shape.bytes().unwrap()).collect())
    })
}

fn sides(shape: Shape) -> reference::Sides {
    [shape.width, shape.height, shape.channels].map(|side| side as usize)
}

fn filtered(filter: Filter, options: &ImageOptions, shape: Shape, data: &[u8]) -> Vec<u8> {
    let mut edited = data.to_vec();
    apply(filter, options, shape, &mut edited).unwrap();
    edited
}

#[test]
fn blur_is_the_plain_weighted_mean_whatever_the_width_and_the_radius() {
    for (shape, data) in small_pictures() {
        for radius in [1, 2, 3, 8, 40] {
            let options = ImageOptions { radius: Some(radius), area: None };
            let expected = reference::blurred(&data, sides(shape), radius as usize);
            let found = filtered(Filter::Blur, &options, shape, &data);
            assert!(found == expected, "{shape}, radius {radius}: {found:?}, not {expected:?}");
        }
    }
}

#[test]
fn blur_is_the_plain_weighted_mean_up_to_the_largest_radius() {
    for channels in [1, 3, 4] {
        let shape = Shape { width: 9, height: 4, channels };
        let white = vec![255; shape.bytes().unwrap()];
        let noise: Vec<u8> = (0..white.len()).map(|n| (n * n * 37 % 256) as u8).collect();
        for radius in [100, 254, 255, 256, 700, 1448, 1449] {
            let options = ImageOptions { radius: Some(radius), area: None };
            for data in [&white, &noise] {
                let expected = reference::blurred(data, sides(shape), radius as usize);
                let found = filtered(Filter::Blur, &options, shape, data);
                assert!(found == expected, "{shape}, radius {radius}: {found:?}, not {expected:?}");
            }
        }
    }
}

#[test]
fn without_a_radius_blur_takes_a_sixtieth_of_the_shorter_side() {
    for (width, height, radius) in [(5, 3, 1), (119, 200, 1), (200, 120, 2), (181, 180, 3)] {
        let shape = Shape { width, height, channels: 1 };
        let data: Vec<u8> = (0..shape.bytes().unwrap()).map(|n| (n * n * 37 % 256) as u8).collect();
        let expected = reference::blurred(&data, sides(shape), radius);
        assert!(filtered(Filter::Blur, &NO_OPTIONS, shape, &data) == expected, "{shape}");
    }
}

#[test]
fn grayscale_is_the_plain_sum_for_every_small_picture() {
    for (shape, data) in small_pictures() {
        let expected = reference::grayed(&data, sides(shape));
        assert_eq!(filtered(Filter::Grayscale, &NO_OPTIONS, shape, &data), expected, "{shape}");
    }
}

#[test]
fn redact_blackens_what_it_should_in_every_small_picture() {
    for (shape, data) in small_pictures() {
        for area in [[0, 0, 1, 1], [0, 0, 40, 12], [0, 1, 7, 2], [3, 0, 1, 9]] {
            let [x, y, width, height] = area.map(|part| part as u32);
            let options = ImageOptions { radius: None, area: Some(Area { x, y, width, height }) };
            let mut edited = data.clone();
            let outcome = apply(Filter::Redact, &options, shape, &mut edited);
            let inside = x < shape.width && y < shape.height;
            assert_eq!(outcome.is_ok(), inside, "{area:?} of {shape}");
            assert_eq!(
                edited,
                reference::redacted(&data, sides(shape), area),
                "{area:?} of {shape}"
            );
        }
    }
}
